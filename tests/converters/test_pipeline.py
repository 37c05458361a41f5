"""Stages under their runner: conditions, cache, reports, failures."""

import hashlib
import os
from pathlib import Path

import pytest

from converters.cache import Cache
from converters.pipeline import Pipeline
from converters.product import Plain
from converters.refusal import StageFailed
from converters.stage import Stage, StoredStage
from edge_core.errors import InvalidInput


class Text:
    """A product that can be changed, as an array can."""

    def __init__(self, text: str) -> None:
        self.text = text

    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Size(Plain, frozen=True, kw_only=True):
    letters: int


class Count(StoredStage[Text, Size]):
    name = "count"

    def __init__(self) -> None:
        self.ran = 0

    def requires(self, given: Text) -> None:
        if not given.text:
            raise InvalidInput("nothing to count")

    def run(self, given: Text) -> Size:
        os.write(1, b"a tool's chatter\n")  # as native libraries do
        self.ran += 1
        if given.text == "boom":
            raise RuntimeError("the tool\nfell over")
        return Size(letters=len(given.text))

    def ensures(self, given: Text, made: Size) -> None:
        if made.letters > 10:
            raise StageFailed("too many letters")

    def pack(self, made: Size) -> bytes:
        return made.pack()

    def unpack(self, data: bytes) -> Size:
        return Size.unpack(data)


class Spoil(Stage[Text, Size]):
    name = "spoil"

    def requires(self, given: Text) -> None: ...

    def run(self, given: Text) -> Size:
        given.text += "!"
        return Size(letters=0)

    def ensures(self, given: Text, made: Size) -> None: ...


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, name: str) -> None:
        self.lines.append(f"started {name}")

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        self.lines.append(f"finished {name}{' from the cache' if cached else ''}")

    def failed(self, name: str) -> None:
        self.lines.append(f"failed {name}")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def pipeline(tmp_path: Path, told: Told) -> Pipeline:
    return Pipeline(told, iter(range(100)).__next__, Cache(tmp_path / "cache"))


def test_a_product_is_made_once(
    pipeline: Pipeline, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = Count()
    assert pipeline.run(stage, Text("four")) == Size(letters=4)
    assert pipeline.run(stage, Text("four")) == Size(letters=4)
    assert pipeline.run(stage, Text("eight...")) == Size(letters=8)
    assert stage.ran == 2
    assert told.lines[:4] == [
        "started count",
        "finished count",
        "started count",
        "finished count from the cache",
    ]
    assert [record.cached for record in pipeline.records] == [False, True, False]
    assert capfd.readouterr() == ("", "")


def test_other_code_makes_it_anew(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Count()
    pipeline.run(stage, Text("four"))
    monkeypatch.setattr("converters.pipeline.code_digest", lambda: "of other code")
    pipeline.run(stage, Text("four"))
    assert stage.ran == 2


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", InvalidInput, "nothing to count"),
        ("boom", StageFailed, r"count failed: RuntimeError: the tool fell over"),
        ("eleven.....", StageFailed, "too many letters"),
    ],
)
def test_a_failure_is_one_line_and_is_not_kept(
    pipeline: Pipeline, told: Told, text: str, error: type[Exception], says: str
) -> None:
    stage = Count()
    for _ in range(2):
        with pytest.raises(error, match=says) as refused:
            pipeline.run(stage, Text(text))
        assert "\n" not in str(refused.value)
    assert told.lines == ["started count", "failed count"] * 2
    assert stage.ran == (0 if not text else 2)


def test_a_stage_that_changes_its_input_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(StageFailed, match="spoil changed its input"):
        pipeline.run(Spoil(), Text("clean"))


def test_a_failed_step_is_told(pipeline: Pipeline, told: Told) -> None:
    with pytest.raises(ValueError, match="x"), pipeline.step("think"):
        raise ValueError("x")
    assert told.lines == ["started think", "failed think"]
