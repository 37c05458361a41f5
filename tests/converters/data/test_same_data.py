"""From data to release and back: what was built is built again, and from nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from converters.data.snapshot_store import Store
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import Manifest
from tests.converters import shop
from tests.simulators.processes import command

REFUSED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a recipe, and beside it ``bundle`` and ``data``."""
    here = tmp_path_factory.mktemp("same-data")
    recipe = shop.recipe(here / "shop")
    done = run("build", recipe, "--out", here / "bundle", data=here / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    return here


def run(*arguments: str | Path, data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SERINUS_DATA": str(data), "SERINUS_CACHE": f"{data}-stages"}
    words = [*command("serinus-convert"), *map(str, arguments)]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment | variables
    )


def manifest(folder: Path) -> Manifest:
    return folders.read(folder / "bundle")


def test_a_build_keeps_its_data_and_names_it(folder: Path) -> None:
    made = manifest(folder)
    (kept,) = Store(folder / "data").everything()
    assert made.snapshot is not None
    assert kept.record is not None
    assert made.snapshot == kept.record.lineage()
    assert made.snapshot.rows == {"events/sales": 1200, "requests": 1200}
    assert {(one.name, one.source) for one in made.datasets} == {("sales", "a seeded generator")}
    assert made.main_metric == "roc_auc"
    card = (folder / "bundle" / "card.md").read_text()
    shown = run("inspect", folder / "bundle", data=folder / "data").stdout
    assert f"`{kept.id[:16]}`" in card
    assert f"snapshot {kept.id[:12]}" in shown


def test_it_is_built_again_from_what_was_kept(folder: Path) -> None:
    # Whoever asks the recipe's code now would get other data.
    done = run(
        *("reproduce", folder / "bundle", "--recipe", folder / "shop"),
        data=folder / "data",
        SHOP_SEED="2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as kept" in done.stdout
    assert "differs from" not in done.stdout


def test_without_it_the_recipe_is_asked_and_nothing_is_kept(folder: Path, tmp_path: Path) -> None:
    done = run("reproduce", folder / "bundle", "--recipe", folder / "shop", data=tmp_path / "no")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what the recipe's code offers now" in done.stdout
    assert not (tmp_path / "no").exists()


def test_other_data_is_refused_with_both_digests_before_training(
    folder: Path, tmp_path: Path
) -> None:
    wanted = ("reproduce", folder / "bundle", "--recipe", folder / "shop")
    done = run(*wanted, data=tmp_path / "no", SHOP_SEED="2")
    assert done.returncode == REFUSED
    assert done.stderr.count("\n") == 1
    for record in manifest(folder).datasets:
        assert f"{record.role} has {record.rows} rows " in done.stderr
        assert f"the manifest {record.rows} rows {record.sha256[:16]}" in done.stderr
    assert "nothing was trained" in done.stderr
    out = tmp_path / "out"
    done = run(
        *("build", folder / "shop", "--out", out, "--same-data-as", folder / "bundle"),
        data=tmp_path / "data",
        SHOP_SEED="2",
    )
    assert done.returncode == REFUSED
    assert "train:" not in done.stdout
    assert not out.exists()


def test_a_build_from_a_snapshot_asks_nobody(folder: Path, tmp_path: Path) -> None:
    named = manifest(folder).snapshot
    assert named is not None
    shutil.copytree(folder / "data" / named.id, tmp_path / "carried")
    out = tmp_path / "out"
    done = run(
        *("build", folder / "shop", "--out", out, "--snapshot", tmp_path / "carried"),
        data=folder / "data",
        SHOP_SEED="none",
    )
    assert done.returncode == 0, done.stderr
    assert folders.read(out).snapshot == named
    broken = bytearray((tmp_path / "carried" / "requests.parquet").read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "carried" / "requests.parquet").write_bytes(broken)
    done = run(
        *("build", folder / "shop", "--out", tmp_path / "no", "--snapshot", tmp_path / "carried"),
        data=folder / "data",
    )
    assert done.returncode == 2
    assert "requests.parquet was altered" in done.stderr


def test_two_builds_at_once_share_a_store(folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "SERINUS_DATA": str(tmp_path / "data"),
        "SERINUS_CACHE": f"{folder / 'data'}-stages",
    }
    words = [*command("serinus-convert"), "build", str(folder / "shop"), "--out"]
    children = [
        subprocess.Popen(
            [*words, str(tmp_path / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        for name in ("a", "b")
    ]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    (kept,) = Store(tmp_path / "data").everything()
    for name in ("a", "b"):
        named = folders.read(tmp_path / name).snapshot
        assert named is not None
        assert named.id == kept.id
