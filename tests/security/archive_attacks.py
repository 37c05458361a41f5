"""Hostile archives and bundles that somebody carries to a device."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from converters import signing
from edge_agent.__main__ import main
from edge_core.bundle import archive
from edge_core.bundle.manifest import FEATURES, MANIFEST
from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.forks import Fork
from tests.security.attacked import NotServing

Member = tuple[tarfile.TarInfo, bytes]


def _member(
    name: str, data: bytes = b"x", *, kind: bytes = tarfile.REGTYPE, to: str = ""
) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, to
    return info, data


HOSTILE: dict[str, list[Member]] = {
    "absolute path": [_member("/etc/serinus-was-here")],
    "path that leads out": [_member("../../outside")],
    "symbolic link": [_member("manifest.json", b"", kind=tarfile.SYMTYPE, to="/etc/passwd")],
    "hard link": [_member("a"), _member("b", b"", kind=tarfile.LNKTYPE, to="a")],
    "device file": [_member("a", b"", kind=tarfile.CHRTYPE)],
    "name twice": [_member("manifest.json"), _member("manifest.json", b"y")],
    "case clash": [_member("manifest.json"), _member("Manifest.json")],
    "too many members": [_member(str(number)) for number in range(archive.MAX_MEMBERS + 1)],
}


def _tar(path: Path, members: list[Member], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]  # mode is a literal
        for info, data in members:
            opened.addfile(info, io.BytesIO(data))
    return path


def _bundle(site: Site) -> Path:
    copy = site.folder / "bundle"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(site.stage.bundles / site.stage.newer.version, copy)
    return copy


def _foreign(site: Site) -> Path:
    folder = _bundle(site)
    signing.sign_folder(folder, signing.generate_key(site.folder / "foreign"))
    return folder


def _touched(name: str) -> Callable[[Site], Path]:
    def build(site: Site) -> Path:
        folder = _bundle(site)
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        return folder

    return build


def _bomb(site: Site) -> Path:
    return _tar(site.folder / "bomb", [_member("a", bytes(8_000_000))], "w:xz")


BUILT: dict[str, Callable[[Site], Path]] = {
    **{
        name: lambda site, members=members: _tar(site.folder / "hostile.tar", members)  # type: ignore[misc]
        for name, members in HOSTILE.items()
    },
    "compressed bomb": _bomb,
    "foreign signature": _foreign,
    "changed manifest": _touched(MANIFEST),
    "changed features": _touched(FEATURES),
    "changed signature": _touched("model.sig"),
    "changed provenance": _touched("provenance.sig"),
}


def _run(site: Site, point: str) -> None:
    with site.device(before="one") as device:
        hostile = BUILT[point](site)
        code = _installed(device, hostile)
        device.start()
        try:
            device.served_by([site.stage.old])
        except Fault as fault:
            raise NotServing(str(fault)) from fault
        if code == 0:
            raise Fault(f"it was installed: {point}")
        if device.truthful().active != site.stage.old:
            raise Fault(f"{point}: something else serves")
        said = (device.folder / "install.log").read_text().strip().splitlines()
        if not said or not said[-1].startswith("serinus-agent: "):
            raise Fault(f"it does not say why: {said[-3:]}")


def _installed(device: Device, bundle: Path) -> int:
    arguments = ["install", str(bundle), "--config", str(device.config)]
    return Fork(lambda: main(arguments), device.folder / "install.log").join(60)


CASES = [
    Case(
        name="carried_by_hand",
        what="hostile archives and bundles that were changed or signed by others",
        points=lambda site: list(BUILT),
        run=_run,
    )
]
