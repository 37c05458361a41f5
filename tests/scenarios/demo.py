"""``make demo``: the whole line on real data, with a readable report."""

import argparse
import json
import signal
import sys
import time

from rich.console import Console

from tests.scenarios.line import ROOT, Line, Refused, Scale
from tests.scenarios.story import Failed, Story


def main() -> int:
    """Tell the story; 0 only when every step ended as told."""
    options = argparse.ArgumentParser(description="The whole line on real data.")
    options.add_argument("--keep", action="store_true", help="leave server and devices up")
    keep = options.parse_args().keep
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - started:5.0f} s] {text}", markup=False)

    folder = ROOT / "build" / "demo"
    with Line(folder, Scale()) as line:
        say(f"all keys lie unencrypted in {line.keys}: real ones do not (docs/key-ceremony.md)")
        story = Story(line, say)
        failure = ""
        try:
            for step in (story.begin, story.improve, story.worsen, story.attack, story.turn):
                step()
        except (Failed, Refused, TimeoutError, RuntimeError) as error:
            failure = str(error)
        report = story.report() | {"failure": failure, "seconds": time.monotonic() - started}
        (folder / "report.json").write_text(json.dumps(report, indent=2))
        fleet = report["fleet"]
        say(
            f"fleet: {fleet['devices']} devices, {fleet['predictions']} predictions, "
            f"{fleet['lost_windows']} windows lost, {fleet['parity_mismatches']} parity mismatches"
        )
        say(failure or "every step ended as told")
        say(f"report: {folder / 'report.json'}")
        if keep:
            console.print(f"page: {line.url}  token: {line.data / 'operator.token'}", markup=False)
            console.print("Ctrl-C ends it", markup=False)
            _wait_for_interrupt()
    return 1 if failure else 0


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is being stopped already


if __name__ == "__main__":
    sys.exit(main())
