import pytest

from edge_agent.serving import declared_consumer
from edge_core.errors import InvalidInput


@pytest.mark.parametrize("name", ["a", "line-7/press", "team:x@site_1.2", "x" * 64])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert declared_consumer.named(name, "http") == name
    assert declared_consumer.named(name.encode(), "http") == name


def test_who_names_nobody_is_counted_by_the_interface() -> None:
    assert declared_consumer.named(None, "http") == "http"


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 65, "-a", "a\n", "a\x00", "ü", b"\xff", 'a"b', "{a}", "a,b"]
)
def test_other_names_are_refused(name: str | bytes) -> None:
    with pytest.raises(InvalidInput, match="1 to 64 letters"):
        declared_consumer.named(name, "http")
