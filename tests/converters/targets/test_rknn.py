import functools
from pathlib import Path

import msgspec
import pytest

from converters.refusal import StageFailed
from converters.targets import open_target, ort
from converters.targets.target import Compiled, Target
from edge_core.errors import Unavailable
from tests.converters.targets import networks
from tests.converters.targets.networks import Name


def opened() -> Target:
    """The target, where the vendor's package is installed: about 1.5 GB."""
    target = open_target("npu-rk3588")
    if not target.tool().runs:
        pytest.skip(target.tool().missing)
    return target


@functools.cache
def compiled(name: Name, leave: tuple[str, ...] = ()) -> Compiled:
    """The toolkit takes seconds to start."""
    return opened().compile(networks.onnx_int8(name, leave))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_simulator_answers_as_the_int8_file_does(name: Name) -> None:
    target, model = opened(), networks.onnx_int8(name)
    feeds = networks.rows(name, 20, seed=5)

    ran = target.run(compiled(name), feeds, measure=True)

    assert ran is not None
    assert compiled(name).data.startswith(b"RKNN")
    assert networks.error(ran.outputs, networks.reference(name, feeds)) < 0.06
    assert networks.error(ran.outputs, ort.runner(model)(feeds)) < 0.06
    assert "simulator" in ran.by
    assert not ran.on_hardware


def test_places_and_figures_are_those_that_the_toolkit_prints() -> None:
    target = opened()

    placed, estimate = target.placement(compiled("cnn")), target.estimate(compiled("cnn"))

    assert placed.misplaced == ()
    assert {"NPU/Conv": 3, "NPU/ConvRelu": 1, "NPU/MaxPool": 1}.items() <= placed.operators.items()
    assert set(estimate.figures) == {"cycles", "arena_bytes", "weight_bytes"}
    assert all(figure > 0 for figure in estimate.figures.values())
    assert "rknn-toolkit2" in estimate.by


def test_an_operator_on_the_processor_is_named() -> None:
    target = opened()

    placed = target.placement(compiled("sines"))

    assert placed.operators["CPU/Sin"] == 1
    assert placed.misplaced == ("Sin node_sin on CPU",)


def test_a_product_left_in_float_is_named_unless_on_purpose() -> None:
    target = opened()
    left = compiled("mlp", ("node_linear",))
    source = msgspec.structs.replace(left.source, scheme="mixed", float_layers=("node_linear",))
    meant = msgspec.structs.replace(left, source=source)

    assert target.placement(left).misplaced == ("Conv node_linear on NPU in float",)
    assert target.placement(meant).misplaced == ()


def test_the_toolkit_leaves_nothing_where_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    opened().compile(networks.onnx_int8("mlp"))

    assert list(tmp_path.iterdir()) == []


def test_what_the_toolkit_cannot_build_is_refused_in_one_line() -> None:
    with pytest.raises(StageFailed) as refused:  # an output that is read inside, too
        opened().compile(networks.onnx_int8("two ends"))

    assert "\n" not in str(refused.value)


def test_without_the_package_the_target_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))

    with pytest.raises(Unavailable, match="serinus-convert install-target npu-rk3588"):
        open_target("npu-rk3588").compile(networks.onnx_int8("mlp"))
