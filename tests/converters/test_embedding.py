"""A hidden layer as a second output: exported, quantised, compared, and built into a release."""

import functools
import io
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from converters import (
    agreement,
    building,
    bundling,
    checking,
    comparing,
    embedding,
    qat,
    signing,
    summary,
)
from converters.building import BuildRequest
from converters.embedding import WithEmbedding, trained_part
from converters.floating import FloatModel
from converters.model_file import Format, ModelFile, Scheme
from converters.parity import numeric_error
from converters.pipeline import Quiet
from converters.quantising import Wanted, quantise
from converters.quiet import silenced
from converters.refusal import RefusedByGate, StageFailed, WrongUse
from converters.targets import litert, ort
from converters.tensors import TensorSpec
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.self_test import self_test
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle, InvalidConfiguration
from edge_core.stats import histogram, projection
from edge_core.stats.projection import Projector
from tests.converters import small

RECIPE = Path(__file__).parents[2] / "firmware_bundles" / "watch_activity"
PROCESSORS = ("cpu-x86_64-ort", "cpu-x86_64-tflite")
LAYER = """
[embedding]
layer = "body.1"
size = 64
"""


class Convolutions(nn.Module):
    """A small network on raw rows, with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
        self.flat = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.flat(self.first(rows[:, None])))
        return found


@functools.cache
def embedded(network: str, layer: str, size: int) -> FloatModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = small.with_scaling(small.plain()) if network == "perceptron" else None
        module = plain.module if plain is not None else Convolutions()
    return FloatModel(
        module=WithEmbedding(module, layer).eval(),
        inputs=(TensorSpec(name="features", shape=(8,)),),
        outputs=(
            TensorSpec(name="logits", shape=(4,)),
            TensorSpec(name="embedding", shape=(size,)),
        ),
    )


@functools.cache
def exported(network: str, layer: str, size: int, form: Format) -> ModelFile:
    return small.export_file(embedded(network, layer, size), form)


def feeds(network: str) -> dict[str, np.ndarray]:
    if network == "perceptron":
        return small.raw_rows(200)
    return {"features": np.random.default_rng(2).normal(size=(200, 8)).astype(np.float32)}


LAYERS = [
    ("perceptron", "body.0", 32),
    ("perceptron", "body.1", 32),
    ("perceptron", "body.3", 32),
    ("convolutions", "flat", 8),
]


@pytest.mark.parametrize("form", ["onnx", "tflite"])
@pytest.mark.parametrize(("network", "layer", "size"), LAYERS)
def test_the_layer_s_own_answer_is_exported_beside_the_logits(
    network: str, layer: str, size: int, form: Format
) -> None:
    model, rows = embedded(network, layer, size), feeds(network)
    assert isinstance(model.module, WithEmbedding)
    answers = model.run(rows)
    heard: list[torch.Tensor] = []
    part = model.module.network.get_submodule(layer)
    hook = part.register_forward_hook(lambda *found: heard.append(found[2]))
    with torch.no_grad():
        logits = model.module.network(torch.from_numpy(rows["features"]))
    hook.remove()
    np.testing.assert_allclose(answers["embedding"], heard[0].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers["logits"], logits.numpy(), rtol=1e-4, atol=1e-5)
    agreement.check_same(model, exported(network, layer, size, form), rows)


@pytest.mark.parametrize("scheme", ["int8 static", "int8 weight-only", "fp16"])
@pytest.mark.parametrize("form", ["onnx", "tflite"])
@pytest.mark.parametrize(("network", "layer", "size"), LAYERS)
def test_quantised_it_is_near_and_costs_the_logits_nothing(
    network: str, layer: str, size: int, form: Format, scheme: Scheme
) -> None:
    model, rows = embedded(network, layer, size), feeds(network)
    wanted = Wanted(scheme=scheme, method="min/max", reduce_range=form == "onnx")
    with silenced():
        file = quantise(exported(network, layer, size, form), rows, wanted)
    answers, expected = (ort if form == "onnx" else litert).runner(file)(rows), model.run(rows)
    for name in ("logits", "embedding"):
        assert numeric_error(expected[name], answers[name]) < 0.05
    if form == "onnx":
        assert not ort.placed(ort.optimised(file.data), file).misplaced
    else:
        assert not litert.placed(file, file.data).misplaced


def test_a_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidConfiguration, match=r"no body\.9; it has scaling, body, body\.0"):
        WithEmbedding(small.with_scaling(small.plain()).module, "body.9")


@pytest.mark.parametrize(
    ("layer", "size", "words"),
    [
        ("body.1", 31, r"\[batch, 32\]; declared is \[batch, 31\]"),
        ("first", 8, r"\[batch, 8, 6\]; declared is \[batch, 8\]"),
    ],
)
def test_a_layer_of_another_shape_is_refused(layer: str, size: int, words: str) -> None:
    network = "convolutions" if layer == "first" else "perceptron"
    with pytest.raises(StageFailed, match=words):
        exported(network, layer, size, "onnx")


def test_fine_tuning_keeps_the_network_s_own_weights() -> None:
    model, rows = embedded(*LAYERS[1]), feeds("perceptron")
    tuned = qat.fine_tune(
        model, rows, teacher=model.run(rows), epochs=1, learning_rate=1e-3, seed=1
    )
    assert tuned.run(rows)["embedding"].shape == (200, 32)
    weights = trained_part(tuned.module).state_dict()
    small.with_scaling(small.plain()).module.load_state_dict(weights)


class Odd(nn.Module):
    """A network with a layer that is not called, one of several answers, and chance."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, 4, batch_first=True)
        self.idle = nn.Linear(8, 4)
        self.chance = nn.Dropout(0.5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.chance(self.recurrent(rows[:, None])[0][:, -1])
        return found


@pytest.mark.parametrize(
    ("layer", "size", "words"),
    [
        ("idle", 4, "idle is not called"),
        ("recurrent", 4, "recurrent gives no single tensor"),
        ("gone", 4, "the network has no gone; it has recurrent, idle, chance"),
        ("chance", 5, r"chance answers \[batch, 4\], and the recipe says \[batch, 5\]"),
    ],
)
def test_a_layer_that_cannot_be_one_is_refused_before_training(
    layer: str, size: int, words: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        embedding.check(Odd(), layer, size, (8,))


def test_looking_at_a_layer_changes_neither_the_network_nor_chance() -> None:
    network = Odd()
    assert network.training
    state = torch.random.get_rng_state()
    embedding.check(network, "chance", 4, (8,))
    assert network.training
    assert network.chance.training
    assert not network.recurrent._forward_hooks
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_recipe_with_a_wrong_layer_is_refused_before_training(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "watch_activity", LAYER.replace("body.1", "body.7"))
    code = recipe / "network.py"
    code.write_text(code.read_text().replace("perceptron.fit(", "raise AssertionError("))
    with pytest.raises(InvalidConfiguration, match=r"no body\.7; it has scaling, body, body\.0"):
        build(recipe, tmp_path / "out", cache=tmp_path / "cache")


def recipe_with(folder: Path, section: str) -> Path:
    """A copy of the watch's recipe whose release 1.1.0 declares an embedding."""
    shutil.copytree(RECIPE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    overlay = folder / "releases" / "1.1.0.toml"
    overlay.write_text(overlay.read_text() + section)
    return folder


def build(recipe: Path, out: Path, **changes: object) -> Manifest:
    given = {"release": "1.1.0", "targets": PROCESSORS, "key": None}
    return building.build(
        BuildRequest(recipe=recipe, out=out, **(given | changes)),  # type: ignore[arg-type]
        Quiet(),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed bundle of both processors, and its public key."""
    folder = tmp_path_factory.mktemp("embedding")
    key = signing.generate_key(folder / "keys")
    recipe = recipe_with(folder / "watch_activity", LAYER)
    build(recipe, folder / "bundle", key=key, cache=folder / "cache")
    return folder / "bundle", folder / "keys" / signing.PUBLIC_KEY


def test_a_release_proves_its_embedding(built: tuple[Path, Path]) -> None:
    bundle, key = built
    manifest = folders.read(bundle)
    assert (manifest.schema_version, manifest.output.embedding) == (4, 64)
    assert sum("golden rows agree" in line for line in checking.verify(bundle, key)) == 2
    for target in PROCESSORS:
        shown = manifest.variant(target).embedding
        assert isinstance(shown, manifests.EmbeddingRecord)
        assert shown.numeric_error is not None
        assert 0 < shown.numeric_error < 0.05
        (gate,) = [g for g in manifest.gates if (g.gate, g.target) == ("embedding_error", target)]
        assert (gate.outcome, gate.value) == ("passed", shown.numeric_error)
        assert manifest.variant(target).misplaced == []
    card = (bundle / manifests.CARD).read_text()
    assert "an embedding of 64 coordinates, which devices watch" in card


def test_people_see_it_and_how_far_it_is_off(built: tuple[Path, Path]) -> None:
    manifest = folders.read(built[0])
    stream = io.StringIO()
    summary.show(Console(file=stream, width=100), manifest, None, all_gates=False)
    assert re.search(r"^embedding: 64 coordinates, error at most 0\.0\d+$", stream.getvalue(), re.M)
    found = comparing.compare(manifest, manifest)
    assert [row.a for row in found.section("contract").rows if row.name == "embedding"] == [
        "64 coordinates"
    ]
    rows = {row.name: row for row in found.section("variants").rows}
    for target in PROCESSORS:
        row = rows[f"{target}: embedding error"]
        assert isinstance(row.a, float)
        assert (row.a, row.change) == (row.b, 0.0)


def test_its_reference_projects_what_training_saw(built: tuple[Path, Path]) -> None:
    bundle, _ = built
    manifest = folders.read(bundle)
    reference = histogram.parse((bundle / manifests.REFERENCE).read_bytes())
    directions = projection.draw(f"{manifest.model}@{manifest.version}", 64, 8)
    assert reference.projection == directions
    golden = goldens.unpack((bundle / manifests.GOLDEN).read_bytes())
    for target in PROCESSORS:
        seen = Projector(directions).project(golden.embeddings[target])
        for place, name in enumerate(directions.names):
            channel = next(c for c in reference.channels if c.name == name)
            assert sum(channel.counts[1:-2]) == reference.rows
            spread = channel.edges[-1] - channel.edges[0]
            assert channel.edges[0] - spread < seen[:, place].min()
            assert seen[:, place].max() < channel.edges[-1] + spread


@pytest.mark.parametrize("target", PROCESSORS)
def test_a_device_takes_it(built: tuple[Path, Path], target: str) -> None:
    release = LoadedRelease.open(built[0], target)
    golden = release.golden()
    assert not isinstance(golden.raw, goldens.Log)
    answered = release.answer(golden.raw, golden.features)
    assert answered.embedding is not None
    assert answered.embedding.shape == (len(golden.features), 64)
    self_test(release)


def test_a_changed_golden_embedding_is_found(built: tuple[Path, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(built[0], bundle)
    (bundle / manifests.SIGNATURE).unlink()
    golden = goldens.unpack((bundle / manifests.GOLDEN).read_bytes())
    moved = {target: found + np.float32(9) for target, found in golden.embeddings.items()}
    for embeddings, words in ((moved, "golden embeddings are off by 9"), ({}, "no golden embed")):
        manifest = folders.read(bundle)
        content = {e.path: (bundle / e.path).read_bytes() for e in manifest.files}
        content[manifests.GOLDEN] = goldens.pack(golden._replace(embeddings=embeddings))
        (bundle / manifests.GOLDEN).write_bytes(content[manifests.GOLDEN])
        changed = msgspec.structs.replace(manifest, files=bundling.entries(content))
        (bundle / manifests.MANIFEST).write_bytes(manifests.serialize(changed))
        signing.sign_folder(bundle, built[1].with_name("statement.pem"))
        with pytest.raises(InvalidBundle, match=words):
            checking.verify(bundle, built[1])


def test_targets_without_a_second_output_are_refused_before_any_work(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path / "watch_activity", LAYER)
    words = r"watch-activity 1\.1\.0 declares an embedding, .* on mcu-tflm \(tflite-micro\): leave"
    with pytest.raises(WrongUse, match=words):
        build(recipe, tmp_path / "out", targets=(*PROCESSORS, "mcu-tflm"))
    assert not (tmp_path / "out").exists()


def test_an_embedding_that_int8_ruins_is_refused_by_its_gate(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path / "watch_activity", LAYER + "numeric_error = 0.0001\n")
    with pytest.raises(RefusedByGate, match="gate embedding_error of cpu-x86_64-ort"):
        build(recipe, tmp_path / "out", cache=built[0].parent / "cache")
    assert not (tmp_path / "out").exists()
