"""Gates on rows that never change: a release and its parent answer the same kept test rows.

Labels of new data may be wrong, and then the test rows that come with them are wrong as well: a
release that learned the mistake looks better on them. Rows that were kept before cannot be damaged
later.
"""

from pathlib import Path

import numpy as np

from converters import gates, host, incumbent, recipe_code
from converters.data.cutting import Cut, ToCut
from converters.data.dataset import Float32, Rows, Snapshot
from converters.data.snapshot_store import Stored
from converters.judging import Shown
from converters.model_file import ModelFile
from converters.recipe import Recipe
from converters.scoring import Scorer
from converters.tensors import TensorSpec
from converters.training import model_rows
from edge_core.bundle.manifest import GateResult
from edge_core.errors import InvalidInput

GATE = "below_parent_fixed"
LOGITS = "logits"


def judge(
    folder: Path,
    chosen: Recipe,
    stored: Stored,
    parent: Path,
    shown: list[Shown],
    trained_on: Snapshot,
) -> list[GateResult]:
    """No worse than the parent on kept test rows, overall and on any slice.

    Args:
        folder: the recipe's.
        chosen: the release, with its margins ``below_parent`` and ``below_parent_slice``.
        stored: the snapshot whose test rows are asked.
        parent: folder of the incumbent's bundle.
        shown: the release's variants; the first that runs here answers.
        trained_on: the rows of this build.

    Raises:
        InvalidInput: one of the kept rows was trained on.
    """
    kept = Cut().run(ToCut(folder=folder, recipe=chosen, stored=stored))
    rows = kept.rows["test"]
    _check_unseen(rows, trained_on)
    scorer = Scorer(
        metrics=recipe_code.metrics(folder, chosen.metrics),
        labels=rows.labels,
        slices=gates.slices_of(chosen, rows),
    )
    before = incumbent.logits(parent, kept)
    own = _answers(chosen, shown, model_rows(chosen, rows))
    return gates.judge_against_parent(
        chosen,
        {} if own is None else scorer.score(own),
        None if before is None or own is None else scorer.score(before),
        scorer.slices,
        gate=GATE,
    )


def _answers(chosen: Recipe, shown: list[Shown], rows: Float32) -> Float32 | None:
    """Float32 [rows, classes] of the first variant that this machine can run."""
    for one in shown:
        runtime = one.variant.profile.runtime
        if runtime not in incumbent.HOST:
            continue
        file = ModelFile(
            format="onnx" if runtime == "onnxruntime" else "tflite",
            data=one.variant.compiled.data,
            inputs=(TensorSpec(name=str(chosen.input), shape=rows.shape[1:]),),
            outputs=(TensorSpec(name=LOGITS, shape=(len(chosen.output.classes),)),),
            scaling=one.variant.compiled.source.scaling,
        )
        found: Float32 = host.runner(file)({str(chosen.input): rows})[LOGITS]
        return found.astype(np.float32, copy=False)
    return None


def _check_unseen(rows: Rows, trained_on: Snapshot) -> None:
    """Windows that were learned prove nothing. Requests share their log by nature."""
    if trained_on.log is not None:
        return
    kept = {np.ascontiguousarray(window, "<f4").tobytes() for window in rows.samples}
    for role in ("train", "calibration"):
        for window in trained_on.rows[role].samples:
            if np.ascontiguousarray(window, "<f4").tobytes() in kept:
                raise InvalidInput(
                    f"a kept test row serves {role} as well: it would be judged by what it learned"
                )
