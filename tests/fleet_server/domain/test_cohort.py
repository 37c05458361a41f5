"""Cohorts: random, stable, stratified, nested."""

from collections import Counter

import numpy as np
import pytest

from fleet_server.domain.cohort import DeviceFacts, Role, assign
from fleet_server.domain.plan import Stage, StageKind

FLEET = [
    DeviceFacts(device=f"d{place}", slices={"side": ("left", "right")[place % 3 == 0]})
    for place in range(300)
]


def draw(
    share: float,
    *,
    kind: StageKind = "canary",
    salt: str = "salt",
    fleet: list[DeviceFacts] | None = None,
    strata: tuple[str, ...] = ("side",),
) -> dict[str, Role]:
    devices = FLEET if fleet is None else fleet
    return assign(devices, Stage(kind=kind, share=share), salt=salt, strata=strata)


def chosen(roles: dict[str, Role], role: Role) -> set[str]:
    return {device for device, found in roles.items() if found == role}


def test_candidates_and_controls_are_as_many_and_never_the_same() -> None:
    roles = draw(0.1)
    assert roles.keys() == {device.device for device in FLEET}
    assert Counter(roles.values()) == {"candidate": 30, "control": 30, "none": 240}


def test_strata_are_drawn_from_alike() -> None:
    roles = draw(0.2)
    for role in ("candidate", "control"):
        sides = Counter(d.slices["side"] for d in FLEET if roles[d.device] == role)
        assert sides == {"left": 40, "right": 20}


def test_the_order_of_devices_and_repetition_change_nothing() -> None:
    assert draw(0.1) == draw(0.1, fleet=FLEET[::-1])
    assert draw(0.1) != draw(0.1, salt="other")


def test_a_larger_share_contains_a_smaller_one() -> None:
    before: set[str] = set()
    for share in (0.01, 0.1, 0.25, 0.5, 0.9, 1.0):
        now = chosen(draw(share), "candidate")
        assert before <= now
        before = now
    assert len(before) == len(FLEET)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9, 0.99])
def test_a_share_below_all_leaves_a_control(share: float) -> None:
    for size in (2, 3, 10):
        fleet = [DeviceFacts(device=f"d{i}", slices={"side": "left"}) for i in range(size)]
        assert chosen(draw(share, fleet=fleet), "control")


def test_small_strata_still_take_part() -> None:
    fleet = [DeviceFacts(device=f"d{i}", slices={"side": str(i)}) for i in range(3)]
    assert chosen(draw(0.1, fleet=fleet), "candidate") == {"d0", "d1", "d2"}
    assert draw(0.5, fleet=[]) == {}


def test_a_shadow_stage_needs_no_control() -> None:
    assert set(draw(1.0, kind="shadow").values()) == {"shadow"}
    assert Counter(draw(0.1, kind="shadow").values()) == {"shadow": 30, "none": 270}


def test_devices_without_the_slice_are_a_stratum_of_their_own() -> None:
    fleet = [*FLEET, *(DeviceFacts(device=f"x{i}") for i in range(10))]
    roles = draw(0.2, fleet=fleet)
    assert Counter(roles[f"x{i}"] for i in range(10))["candidate"] == 2


def test_every_device_is_as_likely_a_candidate_as_any_other() -> None:
    draws = 400
    hits = Counter(
        device for turn in range(draws) for device in chosen(draw(0.2, salt=str(turn)), "candidate")
    )
    rates = np.array([hits[device.device] for device in FLEET]) / draws
    assert abs(rates.mean() - 0.2) < 1e-9
    # Binomial: five standard deviations.
    assert np.abs(rates - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / draws)
