"""Builds one release: data, features, training, variants, evidence, gates, manifest, signature.

Everything happens in a folder beside ``out``, which appears only when the bundle is whole.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from converters import (
    bundling,
    fixed_rows,
    gates,
    incumbent,
    judging,
    leakage,
    overlap,
    recipe,
    recipe_code,
    signing,
    training_stage,
    variants,
)
from converters.cache import Cache, default_folder
from converters.ci_report import Verdicts
from converters.data import same_data, snapshot_store
from converters.data.cutting import Cut, ToCut
from converters.data.dataset import Float32, Snapshot
from converters.data.snapshot_store import Store
from converters.data.taking import TakeData, ToTake
from converters.fine_tuning import FineTune, ToFineTune
from converters.judging import Floating, Scores, Shown
from converters.leakage import Sign
from converters.pipeline import Pipeline, Report
from converters.recipe import Recipe
from converters.refusal import WrongUse
from converters.scoring import Scorer
from converters.settling import settle
from converters.signing import StatementKey
from converters.source import Source
from converters.targets import open_target
from converters.targets.profile import PROFILES, Profile
from converters.tensors import Feeds
from converters.training import model_rows
from converters.training_stage import ToTrain, Train, Trained
from converters.variants import Choices, Job
from edge_core import durable
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import GateResult, Manifest, Waiver
from edge_core.stats.projection import EMBEDDING


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for."""

    recipe: Path
    out: Path
    release: str | None = None
    parent: Path | None = None
    teacher: Path | None = None
    """A bundle to learn from, where the recipe asks for one."""
    waive: tuple[str, ...] = ()
    key: Path | StatementKey | None = None
    """Opened, or the path of one that is not encrypted."""
    targets: tuple[str, ...] = ()
    """Instead of the recipe's, where there are some."""
    reports: Path | None = None
    """Folder for ``gates.json`` and ``junit.xml``; they are written when a gate refuses, too."""
    cache: Path | None = None
    data: Path | None = None
    """Folder of data snapshots."""
    snapshot: str | None = None
    """Id or folder of the snapshot to build from, instead of asking the recipe's code."""
    fixed: str | None = None
    """Id or folder of a snapshot that was kept before: on its test rows the release may be no worse
    than its parent."""
    same_data_as: Path | None = None
    """A bundle; other rows than its manifest names are refused before training."""
    profiles: Path = PROFILES


def build(request: BuildRequest, report: Report) -> Manifest:
    """Build the release that the request names.

    Raises:
        SerinusError: wrong use, bad input, or refused by a gate; nothing stands at ``out`` then.
    """
    if request.out.exists():
        raise WrongUse(f"{request.out} exists already: name another folder with --out")
    if request.fixed is not None and request.parent is None:
        raise WrongUse("--fixed compares with a parent: name its bundle with --parent")
    waivers = [gates.parse_waiver(text) for text in request.waive]
    chosen = recipe.load(request.recipe, request.release)
    if request.targets:
        chosen = msgspec.structs.replace(chosen, targets=list(request.targets))
    # What cannot be built is refused before any work.
    profiles = [open_target(target, request.profiles).profile for target in chosen.targets]
    _refuse_embedding(chosen, profiles)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{request.out.name}.", dir=request.out.parent
    ) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        made = _fill(folder, request, chosen, waivers, report)
        if request.key is not None:
            signing.sign_folder(folder, request.key)
        folder.chmod(0o755)
        folder.replace(request.out)
        durable.sync_folder(request.out.parent)
    return made


def _refuse_embedding(chosen: Recipe, profiles: list[Profile]) -> None:
    lacking = [f"{p.target} ({p.runtime})" for p in profiles if not p.embeds]
    if chosen.embedding is not None and lacking:
        raise WrongUse(
            f"{chosen.model} {chosen.version} declares an embedding, and no device gives one on "
            f"{', '.join(lacking)}: leave these targets out with --targets, or [embedding] out of "
            "the recipe"
        )


class _Built(NamedTuple):
    """Everything that was made before the gates."""

    snapshot: Snapshot
    trained: Trained
    floating: Floating
    embedded: Floating | None
    scorer: Scorer
    shown: list[Shown]
    scores: Scores
    signs: list[Sign]


def _fill(
    folder: Path, request: BuildRequest, chosen: Recipe, waivers: list[Waiver], report: Report
) -> Manifest:
    cache = request.cache or default_folder()
    pipeline = Pipeline(report, time.monotonic, Cache(cache))
    built = _make(request, chosen, pipeline, report, cache)
    with pipeline.step("evidence and gates"):
        results = judging.judge(
            chosen, built.snapshot, built.shown, built.scores, dict(built.scorer.slices)
        )
        results += gates.judge_leakage(chosen, built.signs)
        if request.parent is not None:
            own = judging.own_figures(built.shown)
            results += gates.judge_against_parent(
                chosen, own, built.scores.parent, built.scorer.slices
            )
        if request.fixed is not None:
            results += _on_fixed_rows(request, chosen, built)
        if built.trained.teacher is not None:
            own, taught = judging.own_figures(built.shown), built.trained.teacher.metrics
            results.append(gates.judge_against_teacher(chosen, own, taught))
        tuned = built.trained.fine_tuning
        if tuned is not None and tuned.needed:
            results += gates.judge_fine_tuning(chosen, tuned.after)
        results = gates.apply_waivers(results, waivers)
        verdicts = Verdicts(
            model=chosen.model,
            version=chosen.version,
            waivers=tuple(waivers),
            gates=tuple(results),
            variants=tuple(one.record for one in built.shown),
        )
        settle(verdicts, request.reports)
        manifest = _write(folder, request, chosen, built, results, waivers)
    Cache(cache).prune()
    return manifest


def _make(
    request: BuildRequest, chosen: Recipe, pipeline: Pipeline, report: Report, cache: Path
) -> _Built:
    snapshot = _rows(request, chosen, pipeline)
    given = ToTrain(
        folder=request.recipe,
        recipe=training_stage.without_targets(chosen),
        code_sha256=recipe_code.digest(request.recipe, recipe.release_file(chosen)),
        snapshot=snapshot,
        teacher=request.teacher,
    )
    trained = pipeline.run(Train(), given)
    scorer = Scorer(
        metrics=recipe_code.metrics(request.recipe, chosen.metrics),
        labels=snapshot.rows["test"].labels,
        slices=gates.slices_of(chosen, snapshot.rows["test"]),
    )
    if chosen.quantisation.qat is not None:
        asked = ToFineTune(given=given, trained=trained, scorer=scorer)
        trained = pipeline.run(FineTune(), asked)
    source = training_stage.source(given, trained)
    golden = bundling.golden_rows(snapshot)
    train, test, kept = (
        model_rows(chosen, rows) for rows in (snapshot.rows["train"], snapshot.rows["test"], golden)
    )
    feeds: Feeds = {str(chosen.input): np.concatenate([train, test, kept])}
    answers = variants.answer_in_float(source, feeds, pipeline)
    floating = _floating(answers[bundling.OUTPUT], train, kept)
    embedded = None
    if chosen.embedding is not None:
        embedded = _floating(answers[EMBEDDING], train, kept)
    jobs = _jobs(chosen, source, snapshot, np.concatenate([test, kept]), request, cache)
    shown = [
        judging.show(made, scorer, floating, bundling.OUTPUT, embedded)
        for made in variants.build_all(jobs, report)
    ]
    scores = _scores(request, snapshot, trained, floating, scorer)
    with pipeline.step("signs of leakage"):
        signs = _signs(chosen, snapshot, source)
    return _Built(snapshot, trained, floating, embedded, scorer, shown, scores, signs)


def _floating(answers: Float32, train: Float32, kept: Float32) -> Floating:
    """Of answers to training, test and golden rows, in that order."""
    return Floating(
        train=answers[: len(train)],
        test=answers[len(train) : -len(kept)],
        golden=answers[-len(kept) :],
    )


def _rows(request: BuildRequest, chosen: Recipe, pipeline: Pipeline) -> Snapshot:
    store = Store(request.data or snapshot_store.default_folder(request.cache))
    wanted = ToTake(folder=request.recipe, recipe=chosen, store=store, snapshot=request.snapshot)
    stored = pipeline.run(TakeData(), wanted)
    made = pipeline.run(Cut(), ToCut(folder=request.recipe, recipe=chosen, stored=stored))
    if request.same_data_as is not None:
        same_data.check(made, folders.read(request.same_data_as))
    return made


def _on_fixed_rows(request: BuildRequest, chosen: Recipe, built: _Built) -> list[GateResult]:
    assert request.parent is not None  # checked at the start
    assert request.fixed is not None
    store = Store(request.data or snapshot_store.default_folder(request.cache))
    stored = store.find(request.fixed)
    return fixed_rows.judge(
        request.recipe, chosen, stored, request.parent, built.shown, built.snapshot
    )


def _signs(chosen: Recipe, snapshot: Snapshot, source: Source) -> list[Sign]:
    if snapshot.log is None:
        return overlap.signs(snapshot)
    model = source.load()

    def answer(rows: Float32) -> Float32:
        return model.run({str(chosen.input): rows})[bundling.OUTPUT]

    return leakage.signs(snapshot, answer)


def _jobs(
    chosen: Recipe,
    source: Source,
    snapshot: Snapshot,
    trial: Float32,
    request: BuildRequest,
    cache: Path,
) -> list[Job]:
    wanted = chosen.quantisation
    choices = Choices(
        method=wanted.method,
        mixed_below=chosen.gates.numeric_error if wanted.mixed else 0.0,
        weight_only=wanted.scheme == "int8 weight-only",
    )
    name = str(chosen.input)
    return [
        Job(
            target=target,
            source=source,
            choices=choices,
            calibration={name: model_rows(chosen, snapshot.rows["calibration"])},
            trial={name: trial},
            cache=cache,
            profiles=request.profiles,
        )
        for target in chosen.targets
    ]


def _scores(
    request: BuildRequest, snapshot: Snapshot, trained: Trained, floating: Floating, scorer: Scorer
) -> Scores:
    names, test = snapshot.definition.feature_names, snapshot.rows["test"]
    before = incumbent.logits(request.parent, snapshot) if request.parent else None
    return Scores(
        floating=scorer.score(floating.test),
        fallback=scorer.score(trained.baseline.logits(test.features, names)),
        parent=None if before is None else scorer.score(before),
    )


def _write(
    folder: Path,
    request: BuildRequest,
    chosen: Recipe,
    built: _Built,
    results: list[GateResult],
    waivers: list[Waiver],
) -> Manifest:
    paths = {one.record.path: one.variant for one in built.shown}
    embedding = None if built.embedded is None else built.embedded.train
    content = bundling.files(
        chosen,
        built.snapshot,
        built.trained,
        bundling.Answered(logits=built.floating.train, embedding=embedding),
        paths,
        built.shown,
    )
    manifest = bundling.manifest(
        request.recipe,
        chosen,
        built.snapshot,
        built.trained,
        [one.record for one in built.shown],
        results,
        waivers,
        request.parent,
        content,
    )
    evidence = judging.evidence(manifest, built.scorer, built.shown, built.scores)
    return bundling.write(folder, content, evidence)
