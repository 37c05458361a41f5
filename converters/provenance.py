"""What made a bundle: commit, tools, machine. No secrets."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TOOLS = (
    "torch",
    "onnx",
    "onnxruntime",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "ethos-u-vela",
    "tflite-micro",
    "numpy",
    "pyarrow",
    "serinus",
)


def tools() -> dict[str, str]:
    """Versions of everything that shapes the bytes."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the recipe's checkout and whether it has changes; none outside of one."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return head, bool(changes)


def machine() -> str:
    """Machine class, without the machine's name."""
    return f"{platform.machine()} {platform.system()}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
