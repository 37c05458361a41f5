"""What each call answers with, beside the function that does it; OpenAPI is written from this.

The services' own structs are the answers, so their fields and docstrings are the documentation.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
Form = Literal["one", "list", "part", "other"]

_NAME, _BODY = "__answers_with__", "__takes__"


class Answers(NamedTuple):
    """One call's answer."""

    form: Form
    """``list``: all in ``items``; ``part``: some in ``items``, and ``next`` as a cursor."""
    kinds: tuple[Any, ...]
    """Structs or plain types, any of which it may be; a media type where it is no JSON."""


def one(*kinds: Any) -> Callable[[F], F]:
    """It answers with one value."""
    return _marked(Answers("one", kinds))


def items(*kinds: Any) -> Callable[[F], F]:
    """It answers with a whole list."""
    return _marked(Answers("list", kinds))


def part(*kinds: Any) -> Callable[[F], F]:
    """It answers with a part of a list."""
    return _marked(Answers("part", kinds))


def other(media_type: str) -> Callable[[F], F]:
    """It answers with something that is no JSON."""
    return _marked(Answers("other", (media_type,)))


def takes(kind: Any) -> Callable[[F], F]:
    """It reads its body itself, for there may be much of it."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _BODY, kind)
        return endpoint

    return mark


def body_of(endpoint: Callable[..., Any]) -> Any:
    """What a call reads itself; none where FastAPI does."""
    return getattr(endpoint, _BODY, None)


def of(endpoint: Callable[..., Any]) -> Answers | None:
    """What a call answers with; none where it has no content."""
    return getattr(endpoint, _NAME, None)


def _marked(answers: Answers) -> Callable[[F], F]:
    def mark(endpoint: F) -> F:
        setattr(endpoint, _NAME, answers)
        return endpoint

    return mark
