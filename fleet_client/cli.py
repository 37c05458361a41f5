"""``serinus``: the operators' command."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.segment import Segments
from typer.exceptions import TyperException

from edge_core.errors import InvalidConfiguration, SerinusError, Unavailable
from fleet_client import tables
from fleet_client.client import DEFAULT_URL, FleetClient, Json, Refused

WRONG_USE = 1
UNUSABLE = 2
ROLLED_BACK = 3
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
ENDED = {"promoted", "rolled_back", "inconclusive"}
UNAUTHORISED = 401
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
TOKEN_PLACES = (Path("serinus-data/operator.token"),)

app = typer.Typer(
    help="Operate a fleet of devices: releases, rollouts, what is in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
rollout_app = typer.Typer(help="Start, follow and stop rollouts.", no_args_is_help=True)
verdict_app = typer.Typer(help="Look at stored verdicts.", no_args_is_help=True)
fallback_app = typer.Typer(
    help="Let the simple baseline answer instead of the model, at once.", no_args_is_help=True
)
app.add_typer(rollout_app, name="rollout")
app.add_typer(fallback_app, name="fallback")
app.add_typer(verdict_app, name="verdict")
WIDE = 160
out = Console(markup=False, highlight=False, emoji=False)
if not out.is_terminal:
    out.width = WIDE  # a file or a pipe has no width of its own


class _Context:
    """Options that every command shares."""

    def __init__(self, client: FleetClient, as_json: bool) -> None:
        self.client = client
        self.as_json = as_json

    def show(self, value: Any, rendered: RenderableType) -> None:
        """Print for people, or as JSON for programs."""
        if self.as_json:
            print(json.dumps(value, indent=2))
        else:
            out.print(_harmless(rendered))


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="SERINUS_URL", help="Address of the server.")] = (
        DEFAULT_URL
    ),
    token: Annotated[str, typer.Option(envvar="SERINUS_TOKEN", help="API token.")] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the API token."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Operate a fleet of devices: releases, rollouts, what is in production."""
    client = FleetClient(url, _read_token(token_file) if token_file or not token else token)
    context.obj = _Context(client, as_json)
    context.call_on_close(client.close)


@app.command()
def devices(context: typer.Context) -> None:
    """List the devices and what they run."""
    rows = _of(context).client.devices()
    _of(context).show(rows, tables.devices(rows))


@app.command()
def releases(context: typer.Context) -> None:
    """List the approved releases with their gates and waivers."""
    rows = _of(context).client.releases()
    _of(context).show(rows, tables.releases(rows))


@app.command()
def production(context: typer.Context) -> None:
    """Say which release runs where, since when, decided by what, built from what."""
    rows = _of(context).client.production()
    _of(context).show(rows, tables.production(rows))


@app.command()
def cost(context: typer.Context) -> None:
    """Say what predictions of each release cost in processor time and traffic."""
    rows = _of(context).client.cost()
    _of(context).show(rows, tables.cost(rows))


@app.command()
def consumers(context: typer.Context) -> None:
    """List who asks which model, and how much."""
    rows = _of(context).client.consumers()
    _of(context).show(rows, tables.consumers(rows))


@app.command()
def alerts(context: typer.Context) -> None:
    """List the alerts, open ones first."""
    rows = _of(context).client.alerts()
    _of(context).show(rows, tables.alerts(rows))


@rollout_app.command("list")
def list_rollouts(context: typer.Context) -> None:
    """List the rollouts, newest first."""
    rows = _of(context).client.rollouts()
    _of(context).show(rows, tables.rollouts(rows))


@rollout_app.command()
def start(
    context: typer.Context,
    release: Annotated[str, typer.Argument(help="MODEL@VERSION, an approved release.")],
    plan: Annotated[
        Path | None, typer.Option(help="JSON file with what differs from the default plan.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
) -> None:
    """Start a rollout."""
    started = _of(context).client.start_rollout(release, _read_plan(plan))
    if watch:
        _follow(_of(context), started["rollout"])
    else:
        _of(context).show(started, tables.rollout(started))


@rollout_app.command()
def status(
    context: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Rollout; the newest where left out.")] = "",
) -> None:
    """Show a rollout with its stages and newest figures."""
    row = _of(context).client.rollout(rollout or _newest(_of(context).client))
    _of(context).show(row, tables.rollout(row))


@rollout_app.command()
def watch(
    context: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Rollout; the newest where left out.")] = "",
) -> None:
    """Follow a rollout to its end.

    Exit code 0 when promoted, 3 when rolled back, 2 when it was inconclusive and waits for you.
    """
    _follow(_of(context), rollout or _newest(_of(context).client))


Reason = Annotated[str, typer.Option(help="Why; kept in the log.")]
Which = Annotated[str, typer.Argument(help="Rollout; the newest where left out.")]


@rollout_app.command()
def pause(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Hold a rollout where it is."""
    client = _of(context).client
    row = client.pause(rollout or _newest(client), reason)
    _of(context).show(row, tables.rollout(row))


@rollout_app.command()
def resume(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Go on with a paused rollout."""
    client = _of(context).client
    row = client.resume(rollout or _newest(client), reason)
    _of(context).show(row, tables.rollout(row))


@rollout_app.command()
def rollback(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Put every device of a rollout back on the release it had before."""
    client = _of(context).client
    row = client.roll_back(rollout or _newest(client), reason)
    _of(context).show(row, tables.rollout(row))


Devices = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Names of devices.")]
Model = Annotated[
    str | None, typer.Option(help="Whose baseline; that of the release which a device runs.")
]


@fallback_app.command("on")
def fallback_on(
    context: typer.Context,
    devices: Devices,
    reason: Reason = "",
    lasting: Annotated[
        str, typer.Option("--for", help="Such as 90s, 30m, 2h, 7d; until it is ordered off.")
    ] = "",
    model: Model = None,
) -> None:
    """Let the baseline answer on these devices from their next request on."""
    seconds = _seconds(lasting) if lasting else None
    client = _of(context).client
    rows = client.fallback_on(devices, reason=reason, for_seconds=seconds, model=model)
    _of(context).show(rows, tables.commands(rows, time.time_ns() // 1_000_000))


@fallback_app.command("off")
def fallback_off(
    context: typer.Context, devices: Devices, reason: Reason = "", model: Model = None
) -> None:
    """Let the model answer again on these devices."""
    rows = _of(context).client.fallback_off(devices, reason=reason, model=model)
    _of(context).show(rows, tables.commands(rows, time.time_ns() // 1_000_000))


@fallback_app.command("log")
def fallback_log(
    context: typer.Context, device: Annotated[str, typer.Argument(help="Name of a device.")]
) -> None:
    """List the commands to a device and what became of them."""
    rows = _of(context).client.commands(device)
    _of(context).show(rows, tables.commands(rows, time.time_ns() // 1_000_000))


@verdict_app.command("list")
def list_verdicts(context: typer.Context, rollout: Which = "") -> None:
    """List a rollout's stored verdicts."""
    client = _of(context).client
    rows = client.verdicts(rollout or _newest(client))
    _of(context).show(rows, tables.verdicts(rows))


@verdict_app.command()
def replay(
    context: typer.Context, verdict: Annotated[int, typer.Argument(help="Number of the verdict.")]
) -> None:
    """Judge a stored verdict's inputs again and compare: exit code 2 where they differ."""
    row = _of(context).client.replay(verdict)
    _of(context).show(row, tables.replay(row))
    if not row["same"]:
        raise typer.Exit(UNUSABLE)


def main() -> None:
    """Entry point: one clear line for every refusal."""
    try:
        code = app(prog_name="serinus", standalone_mode=False)
    except TyperException as error:
        said = error.format_message()  # empty where the help was printed instead
        _fail(f"{said} (see: serinus --help)" if said else "", WRONG_USE)
    except Refused as error:
        hint = ""
        if error.status == UNAUTHORISED:
            hint = "; give it with --token-file, --token or SERINUS_TOKEN"
        _fail(f"{error}{hint}", UNUSABLE)
    except SerinusError as error:
        _fail(str(error), UNUSABLE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int) -> None:
    if text:
        print(f"serinus: {text}", file=sys.stderr)
    sys.exit(code)


def _harmless(rendered: RenderableType) -> Segments:
    """The same without what would steer a terminal: devices may say anything."""
    return Segments(
        segment._replace(text=CONTROLS.sub("\ufffd", segment.text))
        for segment in out.render(rendered)
    )


def _of(context: typer.Context) -> _Context:
    found = context.obj
    assert isinstance(found, _Context)
    return found


def _read_token(file: Path | None) -> str:
    """Read the token from the given file, or from the one beside a server started here."""
    places = (file,) if file is not None else tuple(p for p in TOKEN_PLACES if p.exists())
    for place in places:
        try:
            return place.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidConfiguration(
                f"cannot read the token file {place}: {error.strerror}; the server writes "
                "operator.token into its data folder"
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidConfiguration(f"{place} is not a token file") from error
    return ""


def _seconds(text: str) -> float:
    """A span such as ``90s`` or ``2h`` in seconds."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    if found is None:
        raise InvalidConfiguration(f"{text!r} is no span of time: write 90s, 30m, 2h or 7d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def _read_plan(file: Path | None) -> Json | None:
    if file is None:
        return None
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read the plan {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidConfiguration(f"the plan {file} is not valid JSON: {error}") from error
    if not isinstance(plan, dict):
        raise InvalidConfiguration(f"the plan {file} has to be a JSON object")
    return plan


def _newest(client: FleetClient) -> str:
    rows = client.rollouts()
    if not rows:
        raise InvalidConfiguration("there is no rollout yet: serinus rollout start MODEL@VERSION")
    newest: str = rows[0]["rollout"]
    return newest


def _follow(context: _Context, rollout: str) -> None:
    """Show a rollout until it ends; a server that is away for a while is waited for."""
    row = context.client.rollout(rollout)
    quiet = context.as_json or not out.is_terminal
    seen = ""
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while row["state"] not in ENDED:
            if not quiet:
                live.update(_harmless(tables.rollout(row)), refresh=True)
            elif not context.as_json and (line := tables.progress(row)) != seen:
                print(line, flush=True)
                seen = line
            time.sleep(POLL_SECONDS)
            row = _patiently(context.client, rollout)
    context.show(row, tables.rollout(row))
    if row["state"] != "promoted":
        raise typer.Exit(ROLLED_BACK if row["state"] == "rolled_back" else UNUSABLE)


def _patiently(client: FleetClient, rollout: str) -> Json:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.rollout(rollout)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
