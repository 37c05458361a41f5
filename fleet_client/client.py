"""``FleetClient``: every call of the fleet server's API, from Python."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from edge_core.errors import InvalidConfiguration, SerinusError, Unavailable

DEFAULT_URL = "http://127.0.0.1:8321"
TIMEOUT_SECONDS = 15.0

Json = dict[str, Any]


class Refused(SerinusError):
    """The server answered with a problem; ``status`` is its HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class FleetClient:
    """Speaks to one server with one token; answers are the API's JSON.

    Every method raises :class:`Unavailable` when the server cannot be reached and
    :class:`Refused` when it will not do what was asked.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str = "") -> None:
        self.url = url.rstrip("/")
        if not _is_address(self.url):
            raise InvalidConfiguration(f"{url!r} is not an address: write it as {DEFAULT_URL}")
        if not token.isascii():
            raise InvalidConfiguration("the token is not one that a server made: read it again")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_SECONDS,
        )

    def fleet(self) -> Json:
        """Answer with the fleet in numbers."""
        return self._get("fleet")

    def devices(self) -> list[Json]:
        """List every device."""
        return self._items("devices")

    def device(self, name: str) -> Json:
        """Show one device with its whole reported state."""
        return self._get(f"devices/{_part(name)}")

    def fallback_on(
        self,
        devices: Sequence[str],
        *,
        reason: str = "",
        for_seconds: float | None = None,
        model: str | None = None,
    ) -> list[Json]:
        """Let the baseline answer on these devices at once; returns a command for each.

        Args:
            devices: their names; all of them are ordered, or none.
            reason: why; kept in the log.
            for_seconds: when it ends by itself; none: when it is ordered.
            model: whose baseline; none: that of the release which each device runs.
        """
        return self._command(
            "fallback_on", devices, reason=reason, for_seconds=for_seconds, model=model
        )

    def fallback_off(
        self, devices: Sequence[str], *, reason: str = "", model: str | None = None
    ) -> list[Json]:
        """Let the model answer again on these devices; arguments as :meth:`fallback_on`."""
        return self._command("fallback_off", devices, reason=reason, model=model)

    def commands(self, device: str) -> list[Json]:
        """List a device's commands and what became of them, newest first."""
        return self._items(f"devices/{_part(device)}/commands")

    def _command(self, kind: str, devices: Sequence[str], **body: Any) -> list[Json]:
        answer = self._post("commands", {"kind": kind, "devices": list(devices), **body})
        items: list[Json] = answer["items"]
        return items

    def releases(self) -> list[Json]:
        """List every release that is or was approved."""
        return self._items("releases")

    def production(self) -> list[Json]:
        """Tell what is in production, since when and built from what."""
        return self._items("production")

    def cost(self) -> list[Json]:
        """List what predictions of each release cost."""
        return self._items("cost")

    def consumers(self) -> list[Json]:
        """List who asks which model, and how much."""
        return self._items("consumers")

    def rollouts(self) -> list[Json]:
        """List every rollout, newest first."""
        return self._items("rollouts")

    def rollout(self, rollout: str) -> Json:
        """Show one rollout with its stages and newest verdict."""
        return self._get(f"rollouts/{_part(rollout)}")

    def start_rollout(self, release: str, plan: Json | None = None) -> Json:
        """Start a rollout of ``model@version``; ``plan`` holds what differs from the default."""
        return self._post("rollouts", {"release": release, "plan": plan})

    def pause(self, rollout: str, reason: str = "") -> Json:
        """Hold a rollout where it is."""
        return self._post(f"rollouts/{_part(rollout)}/pause", {"reason": reason})

    def resume(self, rollout: str, reason: str = "") -> Json:
        """Go on with a paused rollout."""
        return self._post(f"rollouts/{_part(rollout)}/resume", {"reason": reason})

    def roll_back(self, rollout: str, reason: str = "") -> Json:
        """Put every device of a rollout back on the release it had before."""
        return self._post(f"rollouts/{_part(rollout)}/rollback", {"reason": reason})

    def verdicts(self, rollout: str) -> list[Json]:
        """List the stored verdicts of a rollout, oldest first."""
        return self._items(f"verdicts/{_part(rollout)}")

    def replay(self, verdict: int) -> Json:
        """Judge a stored verdict's inputs again."""
        return self._post(f"verdicts/{verdict}/replay", None)

    def alerts(self) -> list[Json]:
        """List open alerts, then closed ones."""
        return self._items("alerts")

    def events(self, after: int = 0) -> list[Json]:
        """List events after a number, oldest first."""
        return self._items("events", after=after)

    def refusals(self) -> list[Json]:
        """List releases that devices would not install, and why."""
        return self._items("refusals")

    def rejected(self) -> list[Json]:
        """List messages that the server did not take in, counted by reason."""
        return self._items("rejected")

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _get(self, path: str, **query: Any) -> Json:
        return self._call("GET", path, params=query)

    def _items(self, path: str, **query: Any) -> list[Json]:
        items: list[Json] = self._get(path, **query)["items"]
        return items

    def _post(self, path: str, body: Json | None) -> Json:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **options: Any) -> Json:
        try:
            answer = self._http.request(method, path, **options)
            if answer.is_error:
                raise Refused(answer.status_code, _detail(answer))
            content: Json = answer.json()
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.url} did not answer within {TIMEOUT_SECONDS:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"no Serinus server answers at {self.url} ({error}): start one with "
                "'serinus-server run', or name another with --url"
            ) from error
        except ValueError as error:
            raise Unavailable(f"{self.url} does not answer as a Serinus server does") from error
        if not isinstance(content, dict):
            raise Unavailable(f"{self.url} does not answer as a Serinus server does")
        return content


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}"


def _part(name: str) -> str:
    return quote(name, safe="")
