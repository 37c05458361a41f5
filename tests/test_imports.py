"""What each program must not even load: checked in fresh processes, where linters cannot look."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN = {
    "edge_core": [
        "torch",
        "onnx",
        "onnxruntime",
        "ai_edge_litert",
        "fastapi",
        "sqlalchemy",
        "paho",
    ],
    "edge_agent": ["torch", "onnx", "fastapi", "sqlalchemy"],
    "fleet_server": ["torch", "onnx", "onnxruntime", "ai_edge_litert"],
}
PRIVATE_KEY_FILES = {
    "converters/keys/key_file.py",
    "converters/keys/opening.py",
    "converters/keys/token.py",
    "converters/list_writer.py",
    "converters/publishing.py",
    "converters/signing.py",
    "fleet_server/repository_refresh.py",
    "fleet_server/authority/ca_folder.py",  # certifies devices, approves nothing
    "fleet_server/authority/device_ca.py",  # as well
    "edge_agent/identity/keys.py",  # the device's own key
}
PRIVATE_KEY_NAMES = {
    "CryptoSigner",
    "EllipticCurvePrivateKey",
    "Ed25519PrivateKey",
    "Signer",
    "generate_private_key",
    "load_pem_private_key",
}

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_of_the_package_loads_what_it_must_not(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, *FORBIDDEN[package]],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_only_the_key_files_name_private_key_types() -> None:
    offenders = set()
    for package in ("edge_core", "edge_agent", "fleet_server", "fleet_client", "converters"):
        for path in (ROOT / package).rglob("*.py"):
            names = {
                node.name if isinstance(node, ast.alias) else getattr(node, "attr", "")
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.alias | ast.Attribute)
            }
            if names & PRIVATE_KEY_NAMES:
                offenders.add(path.relative_to(ROOT).as_posix())
    assert offenders <= PRIVATE_KEY_FILES
