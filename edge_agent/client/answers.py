"""What the agent's frames say to an application: the answer, or the error that it raised."""

from pathlib import Path
from typing import TypeVar

from edge_agent.serving import frames
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.frames import Answers, Explained, Failure, Joined, Noted, StatusAnswer
from edge_agent.serving.predictions import Prediction
from edge_core import errors
from edge_core.errors import InvalidMessage, SerinusError, Unavailable

_Kind = TypeVar("_Kind", Answers, Noted, Explained, Joined, StatusAnswer)


def unavailable(path: Path, error: OSError) -> Unavailable:
    """No agent answers on this socket."""
    reason = error.strerror or str(error) or type(error).__name__
    return Unavailable(
        f"no agent answers on {path} ({reason}); start it with 'serinus-agent run --config FILE'"
    )


def late(path: Path, timeout: float) -> Unavailable:
    """No answer came in time."""
    return Unavailable(f"no answer from {path} within {timeout:g} s; connect again or wait longer")


def _refusal(failure: Failure) -> SerinusError:
    """Make the error again that the agent raised."""
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, SerinusError):
        return kind(failure.message)
    return SerinusError(failure.message)


def checked(response: frames.Response) -> frames.Response:
    """The response; raise the error that a failure stands for."""
    if isinstance(response, Failure):
        raise _refusal(response)
    return response


def predictions(response: frames.Response) -> list[Prediction]:
    """Answers to ``predict``, ``push`` and ``ask``."""
    return _expected(response, Answers).predictions


def noted(response: frames.Response) -> Noted:
    """The answer to ``observe``."""
    return _expected(response, Noted)


def explanation(response: frames.Response) -> Explanation:
    """The answer to ``explain``."""
    return _expected(response, Explained).explanation


def joined(response: frames.Response) -> bool:
    """The answer to ``feedback``."""
    return _expected(response, Joined).joined


def status(response: frames.Response) -> dict[str, str | int | float | bool | None]:
    """The answer to ``status``."""
    return _expected(response, StatusAnswer).status


def _expected(response: frames.Response, kind: type[_Kind]) -> _Kind:
    found = checked(response)
    if not isinstance(found, kind):
        raise InvalidMessage(f"{kind.__name__} was expected, {type(found).__name__} came")
    return found
