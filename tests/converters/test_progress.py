"""What a person sees of a build, on a terminal and on a pipe."""

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from converters import progress
from converters.cache import Cache
from converters.pipeline import Pipeline
from edge_core.release import ReleaseRef
from tests.converters.sample_evidence import manifest

OUT = Path("build/bundle")

LIVE = """
import sys, time
from rich.console import Console
from converters import progress
from converters.quiet import silenced
with progress.shown(Console(highlight=False, soft_wrap=True)) as report:
    report.started("convert to one")
    report.started("convert to two")
    with silenced():
        print("CHATTER", flush=True)
        time.sleep(0.5)
    report.finished("convert to two", 0.5)
    report.finished("convert to one", 0.6, cached=True)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def piped(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, highlight=False, soft_wrap=True), file


def lines(width: int, **options: bool) -> list[str]:
    console, file = piped(width)
    progress.summarise(console, manifest(), OUT, **options)
    return file.getvalue().splitlines()


def test_a_pipe_gets_one_plain_line_for_each_finished_stage() -> None:
    console, file = piped()
    clock = Clock()
    with progress.ConsoleReport(console, clock) as report:
        report.started("train")
        report.started("convert [bold]x[/bold]")
        report.finished("convert [bold]x[/bold]", 2.25)
        report.finished("train", 1.0, cached=True)
        report.started("place")
        clock.now = 3.0
        report.failed("place")
    assert file.getvalue().splitlines() == [
        "  convert [bold]x[/bold]: 2.2 s",
        "  train: from cache",
        "  place: failed after 3.0 s",
    ]


def test_steps_tell_their_time_or_that_they_failed() -> None:
    console, file = piped()
    clock = Clock()
    with progress.ConsoleReport(console, clock) as report:
        with report.step("train"):
            clock.now = 1.5
        with pytest.raises(OSError, match="full"), report.step("write"):
            raise OSError("disk is full")
    assert file.getvalue().splitlines() == ["  train: 1.5 s", "  write: failed after 0.0 s"]


def test_stages_of_one_name_may_run_side_by_side_in_threads() -> None:
    console, file = piped()
    with progress.ConsoleReport(console) as report:

        def work() -> None:
            for _ in range(50):
                report.started("quantise")
                report.finished("quantise", 0.0)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert file.getvalue().splitlines() == ["  quantise: 0.0 s"] * 200


def test_an_end_without_a_beginning_is_told() -> None:
    console, file = piped()
    with progress.ConsoleReport(console) as report:
        report.finished("sign", 0.1)
        report.failed("pack")
    assert file.getvalue().splitlines() == ["  sign: 0.1 s", "  pack: failed"]


def test_it_is_a_report_for_the_pipeline(tmp_path: Path) -> None:
    console, written = piped()
    with progress.ConsoleReport(console) as report:
        pipeline = Pipeline(report, Clock(), Cache(tmp_path))
        with pipeline.step("think"):
            pass
    assert "think" in written.getvalue()


def test_a_terminal_shows_what_runs_while_tools_are_silenced() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", LIVE],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert child.wait() == 0
    text = seen.decode()
    before, _, after = text.partition("convert to two: 0.5 s")
    assert before.count("convert to one") > 2  # drawn again and again while silenced
    assert "convert to two" in before
    assert "convert to one: from cache" in after
    assert "CHATTER" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_a_pipe_of_a_real_process_is_plain() -> None:
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["  convert to two: 0.5 s", "  convert to one: from cache"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_has_one_line_for_each_variant(width: int) -> None:
    found = lines(width)
    for variant in manifest().variants:
        rows = [line for line in found if line.startswith(f"{variant.target} ")]
        assert len(rows) == 1, variant.target
        assert len(rows[0]) <= width
    npu = next(line for line in found if line.startswith("npu-ethos-u55-128"))
    assert "~212 us" in npu
    unrun = next(line for line in found if line.startswith("npu-qnn-v75")).split()
    assert unrun.count("-") == 5
    gpu = next(line for line in found if line.startswith("gpu-webgpu-ort"))
    assert "1 off" in gpu
    assert found[-1] == f"bundle in {OUT}"


def test_gates_that_passed_are_counted_unless_asked_for() -> None:
    text = "\n".join(lines(120))
    assert "size_bytes" not in text
    assert "3 gates passed, 2 waived" in text
    assert "no evidence, waived: needs 30 test rows" in text
    assert "waived misplaced: one clamp on the CPU costs less than 2 us" in text
    assert "size_bytes" in "\n".join(lines(120, all_gates=True))


def test_gates_that_nobody_waived_are_loud() -> None:
    gates = [msgspec.structs.replace(gate, waived=False) for gate in manifest().gates]
    console, file = piped()
    progress.describe(console, msgspec.structs.replace(manifest(), gates=gates), None)
    assert "3 gates passed, 2 NOT PASSED" in file.getvalue()


def test_an_inspected_bundle_shows_its_digest() -> None:
    console, file = piped()
    ref = ReleaseRef(model="watch-activity", version="1.3.0", digest="ab" * 32)
    progress.describe(console, manifest(), ref)
    assert file.getvalue().startswith(f"watch-activity 1.3.0  {'ab' * 32}\n")


def test_text_of_a_manifest_sends_nothing_to_the_terminal() -> None:
    console, file = piped()
    gates = [msgspec.structs.replace(gate, detail="\x1b[3J") for gate in manifest().gates]
    variants = [msgspec.structs.replace(v, target=f"\x1b{v.target}") for v in manifest().variants]
    odd = msgspec.structs.replace(
        manifest(), description="\x1b[2Jgone [red]x", gates=gates, variants=variants
    )
    progress.describe(console, odd, None)
    assert "?[2Jgone [red]x" in file.getvalue()
    assert "\x1b" not in file.getvalue()
