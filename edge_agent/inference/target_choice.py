"""Which of a bundle's variants this machine runs when nobody says so."""

import importlib.util
import platform
from collections.abc import Collection

from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle

PACKAGES = {"onnxruntime": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}
"""What has to be installed for a variant's runtime; any of them does."""
MACHINES = {"arm64": "aarch64", "AMD64": "x86_64", "amd64": "x86_64"}
"""Other names of the machines that targets are named by."""


def installed() -> set[str]:
    """Runtimes that this environment has; nothing is imported."""
    return {
        runtime
        for runtime, packages in PACKAGES.items()
        if any(importlib.util.find_spec(package) for package in packages)
    }


def choose(manifest: Manifest, machine: str, runtimes: Collection[str]) -> str:
    """The bundle's first target for this machine's processor whose runtime is installed.

    A target for a processor is named ``cpu-MACHINE-...``. Accelerators are never guessed: whether
    one is there and works is for a person to say.

    Args:
        manifest: of the bundle.
        machine: as ``platform.machine()`` names it.
        runtimes: those that are installed.

    Raises:
        InvalidBundle: there is none; the text lists what the bundle has.
    """
    name = MACHINES.get(machine, machine)
    mine = [variant for variant in manifest.variants if variant.target.startswith(f"cpu-{name}-")]
    for variant in mine:
        if variant.runtime in runtimes:
            return variant.target
    release = f"{manifest.model}@{manifest.version}"
    if mine:
        needed = ", ".join(sorted({variant.runtime for variant in mine}))
        raise InvalidBundle(
            f"{release} needs the runtime {needed}, which is not installed: install serinus[agent]"
        )
    have = ", ".join(variant.target for variant in manifest.variants)
    raise InvalidBundle(
        f"{release} has no variant for this machine ({name}); it has {have}: name one with --target"
    )


def chosen(manifest: Manifest, target: str | None) -> str:
    """The target that was named, or the one for the machine that this runs on."""
    return target or choose(manifest, platform.machine(), installed())
