"""HTTPS goes by the server's certificate as its file is now, and never by half of one."""

import asyncio
import ssl
from pathlib import Path

import pytest

from fleet_server.authority.device_ca import DeviceCa
from fleet_server.services.clock import wall_clock
from fleet_server.transport import ServerFiles, following


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate (DER) that a client is shown."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there)
    answering = context.wrap_bio(there, back, server_side=True)
    for one in (asking, answering, asking):
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return asking.getpeercert(binary_form=True) or b""


def made(folder: Path) -> bytes:
    file = DeviceCa(folder).certify_server(["fleet.example"], now_ms=wall_clock())
    return file.read_bytes()


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        pem[pem.index(b"-----BEGIN CERT") :].decode().split("-----END")[0]
        + "-----END CERTIFICATE-----\n"
    )


def test_a_certificate_that_was_replaced_is_shown_and_a_damaged_one_never(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_bytes(first)
    key.write_bytes(first)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    follow = following(ServerFiles(certificate=certificate, key=key), context)
    certificate.write_bytes(second)  # its key comes a moment later
    asyncio.run(follow())
    assert shown(context) == der(first)
    assert "goes on with the certificate before" in capsys.readouterr().err
    key.write_bytes(second)
    asyncio.run(follow())
    assert shown(context) == der(second)
    certificate.unlink()
    asyncio.run(follow())
    asyncio.run(follow())
    assert shown(context) == der(second)
    assert capsys.readouterr().err.count("goes on") == 1, "said once"
    certificate.write_bytes(first)
    key.write_bytes(first)
    asyncio.run(follow())
    assert shown(context) == der(first)
