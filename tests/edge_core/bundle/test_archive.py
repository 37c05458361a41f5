"""The archive is the same every time, and nothing hostile gets out of one."""

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.bundle import archive
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import MANIFEST, MAX_FILE_BYTES
from edge_core.errors import InvalidBundle


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_bundle_comes_out_as_it_went_in(bundle: Path, tmp_path: Path) -> None:
    archive.pack(bundle, tmp_path / "bundle.tar")
    archive.unpack(tmp_path / "bundle.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(bundle)
    folders.check(tmp_path / "out", folders.read(tmp_path / "out"))


def test_the_bytes_do_not_depend_on_times_modes_or_order(bundle: Path, tmp_path: Path) -> None:
    archive.pack(bundle, tmp_path / "first.tar")
    other = tmp_path / "other"
    for path, data in reversed(contents(bundle).items()):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes(data)
        (other / path).chmod(0o600)
        os.utime(other / path, (1, 1))
    archive.pack(other, tmp_path / "second.tar")
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    with tarfile.open(tmp_path / "first.tar") as opened:
        facts = {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in opened}
    assert facts == {(0, 0, 0, 0o644, "", "")}


def a_link(bundle: Path) -> None:
    (bundle / "link").symlink_to(bundle / "card.md")


def a_hidden_file(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"")


def no_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()


def a_very_large_file(bundle: Path) -> None:
    (bundle / "large").touch()
    os.truncate(bundle / "large", MAX_FILE_BYTES + 1)


def much_in_all(bundle: Path) -> None:
    for name in ("one", "two"):
        (bundle / name).touch()
        os.truncate(bundle / name, MAX_FILE_BYTES)


def many_files(bundle: Path) -> None:
    for number in range(archive.MAX_MEMBERS):
        (bundle / f"{number}").touch()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (a_link, "link is not a plain file"),
        (a_hidden_file, "DS_Store"),
        (no_manifest, r"no manifest\.json"),
        (a_very_large_file, "the limit is"),
        (much_in_all, "the limit is"),
        (many_files, "more than 259 files"),
    ],
)
def test_what_could_not_be_unpacked_is_not_packed(
    bundle: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(bundle)
    with pytest.raises(InvalidBundle, match=words):
        archive.pack(bundle, tmp_path / "bundle.tar")
    assert not (tmp_path / "bundle.tar").exists()


def member(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]  # mode is a literal
        for info, data in members:
            opened.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/passwd")],
        [member("../outside")],
        [member("a/../../outside")],
        [member(".hidden")],
        [member("line\nbreak")],
        [member("a" * 300)],
        [member("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        [member("a"), member("b", b"", type=tarfile.LNKTYPE, linkname="a")],
        [member("a", b"", type=tarfile.CHRTYPE)],
        [member("a", b"", type=tarfile.BLKTYPE)],
        [member("a", b"", type=tarfile.FIFOTYPE)],
        [member("a", b"", type=tarfile.DIRTYPE)],
        [member("a"), member("a", b"y")],
        [member("a"), member("A")],
        [member("a"), member("a/b")],
        [member("a/b"), member("a")],
        [member(f"{number}") for number in range(archive.MAX_MEMBERS + 1)],
        [member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})],
        [member("a", pax_headers={"GNU.sparse.size": "9", "GNU.sparse.map": "0,1"})],
        [member("a", pax_headers={"path": "/etc/passwd"})],
    ],
)
def test_a_member_that_is_no_plain_file_below_the_folder_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    (tmp_path / "into").mkdir()
    hostile = tar(tmp_path / "hostile.tar", members)
    with pytest.raises(InvalidBundle):
        archive.unpack(hostile, tmp_path / "into" / "out")
    assert list((tmp_path / "into").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar", "into"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_is_refused(tmp_path: Path, mode: str) -> None:
    packed = tar(tmp_path / "packed", [member("a", bytes(1000))], mode)
    with pytest.raises(InvalidBundle, match="not a whole bundle archive"):
        archive.unpack(packed, tmp_path / "out")


def test_a_member_that_claims_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    info, _ = member("a")
    info.size = MAX_FILE_BYTES + 1
    path = tmp_path / "large.tar"
    path.write_bytes(info.tobuf() + bytes(tarfile.RECORDSIZE - tarfile.BLOCKSIZE))
    with pytest.raises(InvalidBundle, match="member 'a' has 268435457 bytes"):
        archive.unpack(path, tmp_path / "out")


def test_an_archive_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    path.touch()
    os.truncate(path, archive.MAX_ARCHIVE_BYTES + 1)
    with pytest.raises(InvalidBundle, match="the limit is 536870912"):
        archive.unpack(path, tmp_path / "out")


def test_a_long_chain_of_name_headers_is_refused(tmp_path: Path) -> None:
    info, _ = member("././@LongLink", b"ab", type=tarfile.GNUTYPE_LONGNAME)
    path = tmp_path / "chain.tar"
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"ab" + bytes(510)) * 3000)
    with pytest.raises(InvalidBundle, match="not a whole bundle archive"):
        archive.unpack(path, tmp_path / "out")


def test_an_archive_cut_anywhere_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    archive.pack(bundle, tmp_path / "bundle.tar")
    whole = (tmp_path / "bundle.tar").read_bytes()
    cut = tmp_path / "cut.tar"
    before = set(tmp_path.iterdir()) | {cut}
    for length in [*range(0, len(whole), tarfile.BLOCKSIZE), 1, 700, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(InvalidBundle):
            archive.unpack(cut, tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_is_there_already_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    archive.pack(bundle, tmp_path / "bundle.tar")
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidBundle, match="exists already"):
        archive.unpack(tmp_path / "bundle.tar", tmp_path / "out")
    with pytest.raises(InvalidBundle, match="cannot unpack"):
        archive.unpack(tmp_path / "nothing.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


BLOCKS = st.lists(
    st.builds(
        lambda name, kind, size, data: _header(name, kind, size) + data,
        st.sampled_from([b"a", b"../a", b"a/b", b"././@LongLink", b"\xff"]),
        st.sampled_from([b"0", b"1", b"2", b"5", b"L", b"K", b"x", b"g", b"S", b"7", b"\0", b"?"]),
        st.sampled_from([b"00000000003\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"99999999999\0"]),
        st.sampled_from([b"", b"12 size=-51\n" + bytes(500), b"abc" + bytes(509), bytes(1024)]),
    ),
    max_size=5,
).map(b"".join)


def _header(name: bytes, kind: bytes, size: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
    block[0:100] = name.ljust(100, b"\0")
    block[124:136] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=1500) | BLOCKS)
def test_hostile_blocks_are_unpacked_into_the_folder_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name) / "inside"
        inside.mkdir()
        path = Path(name) / "hostile.tar"
        path.write_bytes(data + bytes(-len(data) % tarfile.RECORDSIZE + tarfile.RECORDSIZE))
        try:
            archive.unpack(path, inside / "out")
        except InvalidBundle:
            assert list(inside.iterdir()) == []
        assert {entry.name for entry in Path(name).iterdir()} == {"inside", "hostile.tar"}
