"""The same data, code and seed give the same weights, whatever process trains them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "firmware_bundles"
SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"},
)


def shortened(path: Path, changes: dict[str, str]) -> None:
    text = path.read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)


def watch(folder: Path) -> str:
    """A perceptron on features, two epochs long."""
    shortened(folder / "recipe.toml", {"epochs = 25\n": "epochs = 2\n"})
    return "1.1.0"


def windows(folder: Path) -> str:
    """Convolutions on raw windows that learn from a teacher, one epoch each."""
    shortened(folder / "recipe.toml", {"teacher_epochs = 100": "teacher_epochs = 1"})
    shortened(folder / "releases" / "2.0.0.toml", {"epochs = 100": "epochs = 1"})
    return "2.0.0"


def flights(folder: Path) -> str:
    """January alone, two epochs long."""
    january = {
        '"2013-01-01", "2013-04-20"': '"2013-01-01", "2013-01-20"',
        '"2013-04-20", "2013-05-01"': '"2013-01-20", "2013-01-24"',
        '"2013-05-01", "2013-06-01"': '"2013-01-24", "2013-01-29"',
        '"2013-06-01", "2013-06-04"': '"2013-01-29", "2013-02-01"',
    }
    whole = 'csv.read_csv(io.BytesIO(archive.read("flights.csv")))'
    cut = f'{whole}.filter(pc.field("month") == 1)'
    shortened(folder / "data.py", january | {whole: cut})
    shortened(folder / "recipe.toml", {"epochs = 6": "epochs = 2"})
    return "1.1.0"


@pytest.mark.parametrize(
    ("recipe", "shorten"),
    [("watch_activity", watch), ("watch_activity", windows), ("flight_delay", flights)],
)
def test_two_processes_train_the_same_weights(
    recipe: str, shorten: Callable[[Path], str], tmp_path: Path
) -> None:
    folder = tmp_path / recipe
    shutil.copytree(RECIPES / recipe, folder)
    release = shorten(folder)
    told = set()
    for surroundings in SURROUNDINGS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.converters.weights", str(folder), release],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=os.environ | surroundings,
        )
        assert done.returncode == 0, done.stderr
        told.add(done.stdout)
    assert len(told) == 1, told
    assert len(set(told.pop().split())) == 3  # rows, weights, fallback
