"""What every command shares: the client, and how answers are printed."""

import json
import re
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.segment import Segments

from fleet_client.client import FleetClient

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
UNUSABLE = 2
WIDE = 160
out = Console(markup=False, highlight=False, emoji=False)
if not out.is_terminal:
    out.width = WIDE  # a file or a pipe has no width of its own


class Context:
    """Options that every command shares."""

    def __init__(self, client: FleetClient, as_json: bool) -> None:
        self.client = client
        self.as_json = as_json

    def show(self, value: Any, rendered: RenderableType) -> None:
        """Print for people, or as JSON for programs."""
        if self.as_json:
            print(json.dumps(value, indent=2))
        else:
            out.print(harmless(rendered))


def of(context: typer.Context) -> Context:
    """What the options made."""
    found = context.obj
    assert isinstance(found, Context)
    return found


def harmless(rendered: RenderableType) -> Segments:
    """The same without what would steer a terminal: devices may say anything."""
    return Segments(
        segment._replace(text=CONTROLS.sub("\ufffd", segment.text))
        for segment in out.render(rendered)
    )
