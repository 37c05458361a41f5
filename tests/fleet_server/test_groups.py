"""Queries over devices: SQL and Python mean the same devices, and groups are found when asked."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_core.release import ReleaseRef
from fleet_server.domain import query as queries
from fleet_server.domain.query import Facts, InvalidQuery
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.groups import Change, members
from fleet_server.storage import audit, devices, registry
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")

SITES, TAGS, SIDES = ("", "berlin", "Berlin", "oslo"), ("lab", "old", "a_b", "axb"), ("left", "")


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


def people(fleet: SpokenFleet, ref: ReleaseRef) -> list[Facts]:
    """A dozen devices with all kinds of facts, in the database and as values."""
    found = []
    with fleet.services.database.write() as connection:
        for number in range(12):
            name = f"{'watch' if number % 2 else 'Watch'}-{number}%"
            seen = fleet.clock() - number * 3_600_000
            slices = {"side": SIDES[number % 2]} if number % 3 else {}
            devices.seen(connection, name, seen, alive=True)
            devices.change(
                connection, name, slices=slices, target="cpu" if number % 4 else None,
                online=number % 2 == 0, update_state="idle" if number % 3 else None,
                active=ref.digest if number % 2 else None,
            )  # fmt: skip
            facts = {"site": SITES[number % 4], "retired": number % 5 == 0}
            if number % 4:
                registry.set_facts(connection, [name], dict(facts), seen, "ann")
            tags = [tag for place, tag in enumerate(TAGS) if number & (1 << place)]
            registry.add_tags(connection, [name], tags)
            found.append(
                Facts(
                    name=name, site=SITES[number % 4] if number % 4 else "", tags=frozenset(tags),
                    target="cpu" if number % 4 else "", release=ref.name if number % 2 else "",
                    state="idle" if number % 3 else "", online=number % 2 == 0,
                    retired=bool(number % 4) and number % 5 == 0, seen_ms=seen, slices=slices,
                )
            )  # fmt: skip
    return found


VALUES = st.sampled_from(
    ["berlin", "Berlin", "b*", "*", "lab", "a_b", "a*b", "left", "cpu", "idle", "watch-*", "W*",
     "tiny-motion@1.0.0", "*@1.*", "w?tch*", "[w]*", "watch-1%", "100%", "x\\y"]
)  # fmt: skip
TERMS = st.one_of(
    st.builds(
        lambda key, operator, values: f"{key}{operator}{','.join(values)}",
        st.sampled_from(["name", "site", "tag", "target", "release", "state", "side", "ward"]),
        st.sampled_from(["=", "!="]),
        st.lists(VALUES, min_size=1, max_size=3),
    ),
    st.builds(
        lambda key, operator, value: f"{key}{operator}{value}",
        st.sampled_from(["online", "retired"]),
        st.sampled_from(["=", "!="]),
        st.sampled_from(["true", "false"]),
    ),
    st.builds(
        lambda operator, hours: f"seen{operator}{hours}m",
        st.sampled_from(["<", ">"]),
        st.integers(1, 900).filter(lambda minutes: minutes % 60),
    ),
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(TERMS, max_size=3))
def test_the_database_and_python_mean_the_same_devices(
    fleet: SpokenFleet, ref: ReleaseRef, words: list[str]
) -> None:
    text = " ".join(words)
    terms = queries.parse(text)
    with fleet.services.database.read() as connection:
        empty = devices.one(connection, "Watch-0%") is None
    facts = people(fleet, ref) if empty else _facts(fleet, ref)
    meant = {one.name for one in facts if queries.holds(terms, one, fleet.clock())}
    with fleet.services.database.read() as connection:
        assert set(registry.names_that_fit(connection, terms, fleet.clock())) == meant


KNOWN: dict[int, list[Facts]] = {}


def _facts(fleet: SpokenFleet, ref: ReleaseRef) -> list[Facts]:
    if id(fleet) not in KNOWN:
        KNOWN.clear()
        KNOWN[id(fleet)] = people(fleet, ref)
    return KNOWN[id(fleet)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("berlin", "term 1"),
        ("site=berlin side", "term 2"),
        ("site<2h", "seen takes < or >"),
        ("seen=2h", "seen takes < or >"),
        ("seen<yesterday", "span"),
        ("online=yes", "true or false"),
        ("site=a,,b", "empty"),
        ("=x", "term 1"),
        ("site=berlin " * 21, "at most 20 terms"),
        ("site=" + "x" * 1000, "at most 1000 characters"),
    ],
)
def test_what_is_no_query_is_said_with_its_term(text: str, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        queries.parse(text)


def label(fleet: SpokenFleet, query: str, **change: Any) -> list[str]:
    return fleet.services.groups.label(query, Change(**change), by="ann", role="operator")


def test_labels_are_set_taken_back_and_survive_what_devices_say(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.produce(ref, ["d1", "d2", "d3"])
    assert label(fleet, "name=d1,d2", site="oslo", add_tags=["lab"]) == ["d1", "d2"]
    label(fleet, "name=d2", remove_tags=["lab"], retired=True)
    fleet.report("d2", active=ref, update="committed")
    found = fleet.device("d2")
    assert (found.site, found.retired) == ("oslo", True)
    with fleet.services.database.read() as connection:
        assert registry.tags_of(connection, ["d1", "d2"]) == {"d1": ["lab"], "d2": []}
        assert [entry.action for entry in audit.every(connection)] == ["device.label"] * 2
    label(fleet, "site=oslo", site="")
    assert fleet.device("d1").site == ""


def test_a_group_is_who_fits_now(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    fleet.produce(ref, ["d1", "d2"])
    fleet.services.groups.save("nordic", "site=oslo,bergen", by="ann", role="operator")
    assert fleet.services.groups.one("nordic").devices == []
    label(fleet, "name=d2", site="bergen")
    assert fleet.services.groups.one("nordic").devices == ["d2"]
    with fleet.services.database.read() as connection:
        assert members(connection, "nordic", fleet.clock()) == {"d2"}
        with pytest.raises(InvalidRequest, match="no group 'southern'"):
            members(connection, "southern", fleet.clock())
    fleet.services.groups.drop("nordic", by="ann", role="operator")
    with pytest.raises(NotFound):
        fleet.services.groups.one("nordic")


def test_labels_that_make_no_sense_are_refused_and_change_nothing(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.produce(ref, ["d1"])
    with pytest.raises(NotFound):
        label(fleet, "name=nobody", site="oslo")
    with pytest.raises(InvalidRequest, match="nothing to set"):
        label(fleet, "name=d1")
    with pytest.raises(InvalidRequest, match="no name"):
        label(fleet, "name=d1", site="Old Town")
    with pytest.raises(InvalidRequest, match="no name"):
        fleet.services.groups.save("Old Town", "site=oslo", by="ann", role="operator")
    with pytest.raises(Conflict, match="at most 32 tags"):
        label(fleet, "name=d1", add_tags=[f"t{n}" for n in range(33)])
    with fleet.services.database.read() as connection:
        assert registry.tags_of(connection, ["d1"]) == {"d1": []}
