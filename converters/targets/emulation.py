"""A 64-bit ARM machine for checks: the real aarch64 wheels under qemu's user mode.

Nothing of the host changes: Debian's arm64 packages of Python and the wheels are unpacked into a
folder of their own. qemu takes absolute paths from that folder where they exist there, so a
``/proc/cpuinfo`` of an ARM processor can be laid in it; the host's makes onnxruntime's processor
detection crash.
"""

import functools
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.refusal import StageFailed
from converters.targets import places
from converters.targets.by_place import load_places, save_places
from converters.tensors import Array
from edge_core.errors import Unavailable

Say = Callable[[str], None]
KIND = "aarch64"
CPU = "neoverse-n1"
"""Newer processor models of qemu 7.2 compute int8 wrongly."""
QEMU = "qemu-aarch64-static"
PYTHON = "3.11"
"""The version that Debian 12 has; the emulated side need not have the host's."""
COMMAND = "serinus-convert install-target cpu-aarch64-ort"
SECONDS = 300.0
"""For one model under emulation."""
INSTALL_SECONDS = 600.0
"""For one command of the installation."""
DEBIAN = (
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libssl3",
    "libuuid1",
    "libsqlite3-0",
)
WHEELS = (
    "numpy",
    "onnxruntime",
    "ai-edge-litert",
    "flatbuffers",
    "protobuf",
    "packaging",
    "ml_dtypes",
    "tqdm",
    "typing_extensions",
    "backports.strenum",
)
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
"""What Linux writes on a Neoverse N1."""


def missing() -> str:
    """What lacks for emulation and the command that installs it; empty where nothing does."""
    if platform.machine() == "aarch64":
        return ""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is missing: install Debian's qemu-user-static, then run {COMMAND}"
    if not places.installed(KIND, _wanted()):
        return f"the aarch64 runtimes are missing: run {COMMAND}"
    return ""


def describe(cpu: str) -> str:
    """Who emulates what, for records."""
    return f"qemu {_qemu_version()} ({cpu})"


def install(say: Say) -> None:
    """Download and unpack the aarch64 side; done at once where it is there already.

    Raises:
        Unavailable: qemu is missing, or a package cannot be had.
    """
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is missing: install Debian's qemu-user-static first")
    with places.installing(KIND, _wanted()) as place:
        if place is None:
            say(f"{places.folder(KIND)} is complete")
            return
        say("Debian's arm64 packages of Python ...")
        _debian(place / "root")
        say("aarch64 wheels of the runtimes ...")
        _wheels(place / "site")
        cpu = place / "root" / "sys" / "devices" / "system" / "cpu"
        cpu.mkdir(parents=True)
        for name in ("possible", "present"):
            (cpu / name).write_text("0\n")
        (place / "root" / "proc").mkdir(exist_ok=True)
        (place / "root" / "proc" / "cpuinfo").write_text(CPUINFO)
    say(f"aarch64 runtimes in {places.folder(KIND)}")


def run(model: bytes, suffix: str, given: Sequence[Array], cpu: str) -> list[Array]:
    """Answer rows on an emulated processor.

    Args:
        model: bytes of the file.
        suffix: ``.onnx`` or ``.tflite``; it names the runtime.
        given: arrays in the order of the file's inputs, int8 where it wants that.
        cpu: qemu's name of the processor.

    Raises:
        Unavailable: the emulated side is not installed.
        StageFailed: the runtime failed or took too long.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        feeds, answers = folder / "feeds.npz", folder / "answers.npz"
        (folder / f"model{suffix}").write_bytes(model)
        save_places(feeds, given)
        _worker(cpu, folder / f"model{suffix}", feeds, answers)
        return load_places(answers)


def optimised(model: bytes, cpu: str) -> bytes:
    """The graph that onnxruntime runs of an ONNX file on an emulated processor, as ONNX.

    Raises:
        Unavailable: the emulated side is not installed.
        StageFailed: onnxruntime refuses the file, or it took too long.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source, made = Path(temporary) / "model.onnx", Path(temporary) / "optimised.onnx"
        source.write_bytes(model)
        _worker(cpu, source, made)
        return made.read_bytes()


def _worker(cpu: str, *files: Path) -> None:
    """One process of the emulated Python on a model; see ``workers/emulated.py``."""
    if lack := missing():
        raise Unavailable(lack)
    place = places.folder(KIND)
    command = [
        shutil.which(QEMU) or QEMU,
        *("-cpu", cpu, "-L", str(place / "root")),
        *("-E", f"PYTHONPATH={place / 'site'}"),
        str(place / "root" / "usr" / "bin" / f"python{PYTHON}"),
        str(Path(__file__).parent / "workers" / "emulated.py"),
        *(str(file) for file in files),
    ]
    _ended(command)


def _ended(command: list[str]) -> None:
    try:
        done = subprocess.run(command, env={}, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageFailed(f"the emulated runtime took more than {SECONDS:g} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise StageFailed(
            f"the emulated runtime ended with {done.returncode}: {lines[-1] if lines else ''}"
        )


def _debian(root: Path) -> None:
    """Unpack Debian's arm64 packages with a package list of our own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "status").touch()
        for name in ("lists/partial", "archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Dir::State::Lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
            "Dir::Cache": str(folder),
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        _tool([*apt, "update"], folder)
        _tool([*apt, "download", *DEBIAN], folder / "debs")
        for package in sorted((folder / "debs").glob("*.deb")):
            _tool(["dpkg", "-x", str(package), str(root)], folder)


def _wheels(site: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        tags = [f"--platform={name}_aarch64" for name in PLATFORMS]
        limits = ["--only-binary=:all:", f"--python-version={PYTHON}", "--no-deps"]
        _tool([*pip, *tags, *limits, f"--dest={folder}", *_pins()], folder)
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)


def _tool(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is missing; emulation needs Debian 12") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"{command[0]} took more than {INSTALL_SECONDS:g} s; check the network, then run "
            f"{COMMAND} again"
        ) from error
    if done.returncode:
        raise Unavailable(
            f"{Path(command[0]).name} failed: {_reason(done.stderr or done.stdout)}; emulation "
            f"needs Debian 12 and its package server and the wheels within reach: then run "
            f"{COMMAND} again"
        )


def _reason(said: str) -> str:
    """The first line that a tool calls an error, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
    return (errors or lines[-1:] or ["it said nothing"])[0]


def _pins() -> list[str]:
    """The versions that are installed here, so that both sides run the same code."""
    return [_pin(name) for name in WHEELS]


def _pin(name: str) -> str:
    """What this side does not have may have any version."""
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def _wanted() -> str:
    return "\n".join((PYTHON, *DEBIAN, *_pins(), CPUINFO))


@functools.cache
def _qemu_version() -> str:
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[2] if len(words) > 2 else "of unknown version"
