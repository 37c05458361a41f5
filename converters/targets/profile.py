"""A target's profile: data that says what hardware and runtime a variant is for."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from converters.model_file import Format, Scheme
from edge_core.bundle.manifest import ProviderName, RuntimeName
from edge_core.errors import InvalidConfiguration

PROFILES = Path(__file__).parents[2] / "firmware_bundles" / "targets"
MAX_PROFILE_BYTES = 64 * 1024
AGENT_RUNTIMES = ("onnxruntime", "litert")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the hardware has for the model; none where it does not matter."""

    arena_bytes: int | None = None
    sram_bytes: int | None = None
    flash_bytes: int | None = None
    latency_us: float | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One TOML file of ``firmware_bundles/targets``; its stem is the target's name."""

    target: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*\Z")]
    description: str
    adapter: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\Z")]
    """Module of ``converters.targets`` that serves it."""
    runtime: RuntimeName
    format: Format
    scheme: Scheme
    file: str
    """Name of the model file in the bundle."""
    machine: str
    """As ``platform.machine()`` says, or the core's name where no Python runs there."""
    providers: list[ProviderName] = []
    """Execution providers or delegates that a device should use, the most wanted first."""
    io: Literal["float32", "int8"] = "float32"
    """``int8``: scaling is cut off and inputs and outputs are int8 tensors."""
    batch: Literal["dynamic", "one"] = "dynamic"
    reduce_range: bool = False
    """Weights of 7 bits: for processors whose 8-bit products saturate (x86 without VNNI)."""
    limits: Limits = Limits()
    cost_per_hour: float | None = None
    """Of the hardware while it is busy, in the currency that all profiles share."""
    options: dict[str, str | int | float | bool | list[str]] = {}
    """For the adapter: compiler options, emulated processor and the like."""

    @property
    def embeds(self) -> bool:
        """Whether a device of this kind gives a second output: where our own agent runs it."""
        return self.runtime in AGENT_RUNTIMES


def load(name: str, folder: Path = PROFILES) -> Profile:
    """Read one profile.

    Raises:
        InvalidConfiguration: there is none of this name, or it is not valid.
    """
    path = folder / f"{name}.toml"
    known = names(folder)
    if name not in known:
        raise InvalidConfiguration(f"unknown target {name}; known are {', '.join(known)}")
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PROFILE_BYTES).decode()
        profile = msgspec.convert(tomllib.loads(text), Profile)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidConfiguration(f"{path}: {error}") from error
    if profile.target != name:
        raise InvalidConfiguration(f"{path} calls itself {profile.target}; name both the same")
    return profile


def names(folder: Path = PROFILES) -> list[str]:
    """Names of all targets that have a profile."""
    return sorted(path.stem for path in folder.glob("*.toml"))
