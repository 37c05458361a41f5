"""One target's variant, from the float model to its record; several side by side."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from converters import tensors
from converters.cache import Cache
from converters.converting import (
    AnswerInFloat,
    Asked,
    Compile,
    Export,
    Float,
    MeasureLayers,
    Model,
    Quantise,
    ToCompile,
    ToQuantise,
    ToTry,
    Tried,
    Try,
)
from converters.pipeline import Pipeline, Quiet, Report
from converters.product import Plain
from converters.quantising import Method, Wanted
from converters.source import Source
from converters.targets import open_target
from converters.targets.profile import PROFILES, Profile
from converters.targets.target import Compiled
from converters.tensors import Feeds


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """How the person wants variants to be quantised; targets' profiles say the rest."""

    method: Method = "auto"
    mixed_below: float = 0.0
    """Leave layers in float until the numeric error is below this; 0 leaves none."""
    weight_only: bool = False
    measure_layers: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that one target needs, in a form that travels to another process."""

    target: str
    source: Source
    choices: Choices
    calibration: Feeds
    trial: Feeds
    """Rows that the compiled file shall answer."""
    cache: Path
    profiles: Path = PROFILES


class Variant(Plain, frozen=True, kw_only=True):
    """What came of one target."""

    profile: Profile
    compiled: Compiled
    tried: Tried
    compiled_by: str
    float_bytes: int
    """Size of the float file that it was quantised from."""
    layer_errors: dict[str, float]


def build(job: Job, pipeline: Pipeline) -> Variant:
    """Build one variant; what the cache holds is not made again.

    Raises:
        SerinusError: the model is refused; the message names target, cause and fix.
    """
    target = open_target(job.target, job.profiles)
    profile = target.profile
    model = Model(source=job.source)
    probe = tensors.take(job.calibration, range(min(8, tensors.rows_of(job.calibration))))
    floats = pipeline.run(Export(_form(profile)), Asked(model=model, feeds=probe))
    given = ToQuantise(
        file=floats,
        calibration=job.calibration,
        wanted=_wanted(profile, job.choices),
        limit=job.choices.mixed_below,
    )
    quantised = pipeline.run(Quantise(), given)
    layers: Mapping[str, float] = {}
    if job.choices.measure_layers and profile.scheme == "int8 static":
        layers = pipeline.run(MeasureLayers(), given).errors
    compiled = pipeline.run(Compile(), ToCompile(target=target, file=quantised))
    tried = pipeline.run(Try(), ToTry(target=target, compiled=compiled, feeds=job.trial))
    return Variant(
        profile=profile,
        compiled=compiled,
        tried=tried,
        compiled_by=target.tool().by,
        float_bytes=len(floats.data),
        layer_errors=dict(layers),
    )


def answer_in_float(source: Source, feeds: Feeds, pipeline: Pipeline) -> Feeds:
    """The reference answers of the float32 model, by output name."""
    return pipeline.run(AnswerInFloat(), Asked(model=Model(source=source), feeds=feeds)).feeds


def build_all(jobs: Sequence[Job], report: Report) -> list[Variant]:
    """Build variants side by side, one process for each core.

    Raises:
        SerinusError: the first refusal; the others are ended.
    """
    workers = min(len(jobs), os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads
    with _pool(workers, context) as pool:
        futures = {}
        for job in jobs:
            report.started(job.target)
            futures[pool.submit(_timed, job)] = job.target
        made: dict[str, Variant] = {}
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            try:
                made[name], seconds, cached = future.result()
            except BaseException:
                report.failed(name)
                raise
            report.finished(name, seconds, cached)
    return [made[job.target] for job in jobs]


def _timed(job: Job) -> tuple[Variant, float, bool]:
    """The variant, the seconds it took, and whether the cache held all of it."""
    started = time.monotonic()
    pipeline = Pipeline(Quiet(), time.monotonic, Cache(job.cache))
    made = build(job, pipeline)
    cached = all(record.cached for record in pipeline.records)
    return made, time.monotonic() - started, cached


@contextlib.contextmanager
def _pool(
    workers: int, context: multiprocessing.context.SpawnContext
) -> Iterator[concurrent.futures.Executor]:
    """A pool whose waiting jobs are dropped when the build ends early."""
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _form(profile: Profile) -> Float:
    if profile.format == "onnx":
        return "onnx"
    return "tflite" if profile.io == "float32" else "tflite without scaling"


def _wanted(profile: Profile, choices: Choices) -> Wanted:
    scheme = profile.scheme
    if choices.weight_only and scheme == "int8 static" and profile.io == "float32":
        scheme = "int8 weight-only"
    return Wanted(
        scheme=scheme,
        method=choices.method,
        reduce_range=profile.reduce_range,
        io=profile.io,
        batch=profile.batch,
    )
