"""``serinus``: the operators' command."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from edge_core.errors import InvalidConfiguration, SerinusError
from fleet_client.client import DEFAULT_URL, FleetClient, Refused
from fleet_client.commands import (
    consumers,
    cost,
    devices,
    drift,
    enrolment,
    groups,
    history,
    incidents,
    journal,
    labels,
    releases,
    retraining,
    rollouts,
    tokens,
    webhooks,
)
from fleet_client.commands.context import UNUSABLE, Context

WRONG_USE = 1
UNAUTHORISED = 401
TOKEN_PLACES = (Path("serinus-data/operator.token"),)

app = typer.Typer(
    help="Operate a fleet of devices: releases, rollouts, what is in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for subject in (devices, releases, cost, consumers, history, labels, journal):
    app.add_typer(subject.app)
app.add_typer(releases.release_app, name="release")
app.add_typer(consumers.consumer_app, name="consumer")
app.add_typer(cost.price_app, name="price")
app.add_typer(cost.budget_app, name="budget")
app.add_typer(rollouts.rollout_app, name="rollout")
app.add_typer(devices.fallback_app, name="fallback")
app.add_typer(groups.device_app, name="device")
app.add_typer(groups.group_app, name="group")
app.add_typer(rollouts.verdict_app, name="verdict")
app.add_typer(labels.label_app, name="label")
app.add_typer(incidents.app, name="incident")
app.add_typer(journal.audit_app, name="audit")
app.add_typer(drift.app, name="drift")
app.add_typer(retraining.app, name="retrain")
app.add_typer(tokens.app, name="tokens")
app.add_typer(enrolment.enrol_app, name="enrol")
app.add_typer(enrolment.certificate_app, name="certificate")
app.add_typer(labels.appeal_app, name="appeal")
app.add_typer(webhooks.app, name="webhook")


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
    ca_file: Annotated[
        Path | None,
        typer.Option(envvar="SERINUS_CA_FILE", help="Whose certificate the server has (PEM)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Operate a fleet of devices: releases, rollouts, what is in production."""
    secret = _read_token(token_file) if token_file or not token else token
    client = FleetClient(url, secret, ca_file=ca_file)
    context.obj = Context(client, as_json)
    context.call_on_close(client.close)


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


if __name__ == "__main__":
    main()
