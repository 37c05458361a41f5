"""``serinus enrol`` and ``serinus certificate``."""

import time
from typing import Annotated

import typer
from rich.text import Text

from edge_core.errors import InvalidConfiguration
from fleet_client.commands.context import of
from fleet_client.commands.options import Most, Reason, seconds_of
from fleet_client.views import enrolment as views

enrol_app = typer.Typer(help="Let devices into the fleet.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens that devices are enrolled with.", no_args_is_help=True)
certificate_app = typer.Typer(help="Certificates of devices.", no_args_is_help=True)
enrol_app.add_typer(token_app, name="token")


@token_app.command()
def create(
    context: typer.Context,
    devices: Annotated[str, typer.Argument(help="A device's name, or a pattern: 'watch-*'.")],
    uses: Annotated[int, typer.Option(min=1, help="How many devices it enrols.")] = 1,
    lasting: Annotated[str, typer.Option("--for", help="Such as 12h, 7d.")] = "1d",
    reenrol: Annotated[
        bool, typer.Option("--reenrol", help="Let the name go to another key.")
    ] = False,
) -> None:
    """Make a token and print its secret, which is shown this once."""
    expires = round((time.time() + seconds_of(lasting)) * 1000)
    secret = of(context).client.create_enrol_token(
        devices, uses=uses, reenrol=reenrol, expires_ms=expires
    )
    of(context).show({"secret": secret}, Text(secret))


@token_app.command("list")
def list_tokens(context: typer.Context) -> None:
    """List the tokens, without their secrets."""
    rows = of(context).client.enrol_tokens()
    of(context).show(rows, views.tokens(rows))


@token_app.command("revoke")
def revoke_token(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="As the list names it.")],
) -> None:
    """End a token at once; certificates that were made for it stay."""
    of(context).client.revoke_enrol_token(token)
    of(context).show({"revoked": token}, Text(f"{token} is revoked"))


@certificate_app.command("list")
def list_certificates(
    context: typer.Context,
    device: Annotated[str | None, typer.Option(help="Of one device.")] = None,
    limit: Most = 100,
) -> None:
    """List certificates, newest first."""
    rows = of(context).client.certificates(device, limit)
    of(context).show(rows, views.certificates(rows))


@certificate_app.command()
def revoke(
    context: typer.Context,
    serial: Annotated[str | None, typer.Argument(help="As the list names it.")] = None,
    device: Annotated[str | None, typer.Option(help="All of this device.")] = None,
    reason: Reason = "",
) -> None:
    """Revoke a certificate, or all of a device: it is let in no more, and thrown off."""
    if (serial is None) == (device is None):
        raise InvalidConfiguration("name a certificate's serial, or --device")
    rows = of(context).client.revoke_certificates(serial=serial, device=device, reason=reason)
    of(context).show(rows, views.certificates(rows))


@certificate_app.command()
def crl(context: typer.Context) -> None:
    """Print the revocation list (PEM), for a broker of your own."""
    text = of(context).client.crl().decode()
    of(context).show({"crl": text}, Text(text))


@certificate_app.command()
def authority(context: typer.Context) -> None:
    """Print the certificate of the fleet's authority (PEM), which devices pin."""
    text = of(context).client.authority().decode()
    of(context).show({"authority": text}, Text(text))
