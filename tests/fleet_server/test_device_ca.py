"""The fleet's certificate authority: its files, and what it certifies."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge_core.errors import InvalidConfiguration, SerinusError
from fleet_server.authority.ca_folder import CERTIFICATE, KEY
from fleet_server.authority.device_ca import DeviceCa
from tests.simulators.enrolling import new_key

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def test_the_authority_s_key_is_kept_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    made = DeviceCa(folder).trusted(1_700_000_000_000)
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert DeviceCa(folder).trusted(1_700_000_000_000) == made
    (tmp_path / "other").mkdir()
    DeviceCa(tmp_path / "other").trusted(1_700_000_000_000)
    (folder / KEY).write_bytes((tmp_path / "other" / KEY).read_bytes())
    with pytest.raises(InvalidConfiguration, match="not the key of"):
        DeviceCa(folder).trusted(1_700_000_000_000)
    (folder / KEY).write_bytes(b"")
    with pytest.raises(InvalidConfiguration, match="backup"):
        DeviceCa(folder).trusted(1_700_000_000_000)


def test_an_authority_whose_key_is_away_is_not_replaced(tmp_path: Path) -> None:
    folder, away = tmp_path / "ca", tmp_path / "away"
    authority = DeviceCa(folder)
    before = authority.trusted(NOW_MS)
    folder.rename(away)  # an unmounted disk
    with pytest.raises(InvalidConfiguration, match=r"ca\.key is missing"):
        authority.trusted(NOW_MS)
    (folder / ".lock").unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
    away.rename(folder)
    assert authority.trusted(NOW_MS) == before
    authority.certify_server(["fleet.example"], now_ms=NOW_MS)
    (folder / KEY).unlink()
    with pytest.raises(InvalidConfiguration, match=r"ca\.key is missing"):
        DeviceCa(folder).trusted(NOW_MS)
    assert (folder / CERTIFICATE).read_text() == before


def test_a_server_s_certificate_names_what_it_is_reached_by(tmp_path: Path) -> None:
    authority = DeviceCa(tmp_path)
    file = authority.certify_server(["fleet.example", "192.0.2.1"], now_ms=1_700_000_000_000)
    assert file.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]
    with pytest.raises(SerinusError):
        authority.certify_server(["bücher.example"], now_ms=1_700_000_000_000)


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    authority, key = DeviceCa(tmp_path), new_key()
    late = 1_700_000_000_000 + 3640 * DAY_MS
    authority.trusted(1_700_000_000_000)
    made = authority.certify_device(
        key.public_key(), "watch-01", now_ms=late, life=timedelta(days=30)
    )
    assert made.not_after_ms == 1_700_000_000_000 + 3650 * DAY_MS
