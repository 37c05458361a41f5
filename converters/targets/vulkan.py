"""The Vulkan device that GPU targets run on: this machine's GPU, else a driver in software.

Dawn, which both GPU runtimes are built on, wants features that llvmpipe lacks in Debian 12's own
Mesa, and float16, which SwiftShader lacks. Mesa of Debian 12's backports has both; it is unpacked
into a folder of its own with the libraries that it needs.
"""

import json
import platform
from pathlib import Path

from converters.targets import debian, places
from converters.targets.environments import Say

KIND = "vulkan"
SUITE = "bookworm-backports"
DRIVER = "mesa-vulkan-drivers"
PACKAGES = (
    *(DRIVER, "libvulkan1", "libdrm2", "libllvm15", "libedit2", "libtinfo6", "libz3-4"),
    *("libx11-xcb1", "libxcb1", "libxcb-dri3-0", "libxcb-present0", "libxcb-randr0"),
    *("libxcb-shm0", "libxcb-sync1", "libxcb-xfixes0", "libxshmfence1", "libxau6", "libxdmcp6"),
    *("libwayland-client0", "libffi8", "libexpat1", "libxml2", "libicu72", "liblzma5"),
    *("libbsd0", "libmd0", "libzstd1", "zlib1g"),
)
"""The driver and what it links with, the C and C++ libraries aside."""
NODES = ("dri/renderD*", "nvidia[0-9]*")
SOFTWARE = "*lvp*,*swiftshader*"
"""Files that describe drivers in software."""
VERSION = "version"
ICD = "driver.json"


def gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has a GPU."""
    return any(next(devices.glob(pattern), None) is not None for pattern in NODES)


def missing(target: str) -> str:
    """What lacks for running and the command that installs it; empty where nothing does."""
    if gpu() or places.installed(KIND, _wanted()):
        return ""
    command = f"serinus-convert install-target {target}"
    return f"to run: no GPU and no Vulkan driver in software here: run {command}"


def install(say: Say) -> None:
    """Download and unpack the driver in software, where there is no GPU.

    Raises:
        Unavailable: it cannot be had.
    """
    if gpu():
        say("this machine has a GPU: a Vulkan driver in software is not needed")
        return
    with places.installing(KIND, _wanted()) as place:
        if place is None:
            say(f"{places.folder(KIND)} is complete")
            return
        say("Debian's packages of a Vulkan driver in software ...")
        versions = debian.unpack(PACKAGES, SUITE, place)
        (place / VERSION).write_text(versions[DRIVER].split("-")[0])
        described = next(place.glob("usr/share/vulkan/icd.d/lvp_icd*.json"))
        driver = json.loads(described.read_text())
        library = place.absolute() / "usr" / "lib" / _arch() / "libvulkan_lvp.so"
        driver["ICD"]["library_path"] = str(library)
        (place / ICD).write_text(json.dumps(driver))
    say(f"Vulkan driver in {places.folder(KIND)}")


def variables() -> dict[str, str]:
    """What processes that use the device need in their environment.

    Where there is a GPU, drivers in software are shut out: what then runs, ran on the GPU.
    """
    if gpu():
        return {"VK_LOADER_DRIVERS_DISABLE": SOFTWARE}
    place = places.folder(KIND).absolute()
    folders = [place / "usr" / "lib" / _arch(), place / "lib" / _arch()]
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "VK_DRIVER_FILES": str(place / ICD),
    }


def describe() -> str:
    """The device, for records."""
    if gpu():
        return "the GPU of this machine"
    version = (places.folder(KIND) / VERSION).read_text()
    return f"llvmpipe of Mesa {version} on {platform.machine()}"


def _arch() -> str:
    return f"{platform.machine()}-linux-gnu"


def _wanted() -> str:
    return "\n".join((SUITE, *PACKAGES))
