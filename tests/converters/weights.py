"""Trains a recipe in this process and prints what came out: ``python -m tests.converters.weights``.

Arguments: the recipe's folder and a release.
"""

import sys
from pathlib import Path

from converters import recipe, recipe_code, training_stage
from converters.data.cutting import Cut, ToCut
from converters.training_stage import ToTrain, Train
from edge_core.bundle.digest import sha256_bytes


def main(folder: Path, release: str) -> None:
    """Print sha256 of the rows, the weights and the fallback."""
    chosen = recipe.load(folder, release)
    snapshot = Cut().run(ToCut(folder=folder, recipe=chosen))
    given = ToTrain(
        folder=folder,
        recipe=training_stage.without_targets(chosen),
        code_sha256=recipe_code.digest(folder, recipe.release_file(chosen)),
        snapshot=snapshot,
    )
    made = Train().run(given)
    for part in (snapshot.digest(), sha256_bytes(made.weights), sha256_bytes(made.fallback)):
        sys.stdout.write(f"{part}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
