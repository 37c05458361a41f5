"""A release repository that misbehaves at every request of an update in turn, or all the time."""

from collections.abc import Callable
from pathlib import Path

from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.forks import Fork
from tests.simulators.misbehaving_server import RANGES, Misbehaving
from tests.simulators.processes import free_port

PASSING = ("drop", "cut", "long", "error", "nonsense", "slow")
"""What is over with the next attempt."""
WRONG = ("short", "garbage", "empty", "endless")
"""Bytes that are not the approved ones: the release may be refused for them, with a reason."""
TIMES = 20


class Server:
    """The misbehaving server in a process of its own."""

    def __init__(self, device_folder: Path, root: Path, plan: Callable[[int], str]) -> None:
        self.port = free_port()
        self._plan = plan
        self._root = root
        self._folder = device_folder
        self.count = device_folder / "requests"
        self._fork: Fork | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

        def serve() -> None:
            Misbehaving(self._root, self.port, self._plan, self.count).serve_forever()

        self._fork = Fork(serve, self._folder / "server.log")

    def down(self) -> None:
        if self._fork is not None:
            self._fork.kill()

    def __enter__(self) -> "Server":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def _requests(site: Site) -> int:
    with Server(site.folder / "s", site.stage.repository, lambda number: "") as server:
        with site.device(before="one", url=server.url) as device:
            device.start()
            device.want(site.stage.new)
            device.committed(site.stage.new)
        return server.count.stat().st_size


def _points(site: Site) -> list[str]:
    count = _requests(site)
    kinds = [*PASSING, *WRONG, *(f"cut+{kind}" for kind in RANGES)]
    return site.some([f"{kind}-{n}" for kind in kinds for n in range(1, count + 1)], 12)


def _plan(kind: str, number: int) -> Callable[[int], str]:
    first, _, ranged = kind.partition("+")

    def plan(request: int) -> str:
        if request == number:
            return first
        # Only the next few, so that the device can find its way.
        return f"range:{ranged}" if ranged and number < request <= number + 12 else ""

    return plan


def _run(site: Site, point: str) -> None:
    kind, _, number = point.rpartition("-")
    stage = site.stage
    with (
        Server(site.folder / "s", stage.repository, _plan(kind, int(number))) as server,
        site.device(before="one", url=server.url) as device,
    ):
        device.start()
        device.served_by([stage.old])
        device.want(stage.new)
        device.rests_or_gives_up(stage.new)
        said = device.truthful()
        if kind in PASSING and said.active != stage.new:
            raise Fault(f"one bad answer ended the update: {said.reason}")
        _serves_on(device)


def _serves_on(device: Device) -> None:
    """What serves is one of the two; once the server is well, the next wish is fulfilled."""
    stage = device.stage
    device.served_by([stage.old, stage.new])
    if not device.holds(stage.new):
        device.want(stage.new)
        device.rests_or_gives_up(stage.new)
        if not device.holds(stage.new):  # the bad answers were not over
            device.want(stage.new)
    device.committed(stage.new)
    device.truthful()
    device.tidy(stage.old, stage.new)


def _down_and_up(site: Site, point: str) -> None:
    """The server goes down and up again many times while one update goes on."""
    stage = site.stage
    plan = {"plain": lambda number: "", "slow": lambda number: "slow"}[point]
    with (
        Server(site.folder / "s", stage.repository, plan) as server,
        site.device(before="one", url=server.url, attempts=90) as device,
    ):
        server.down()
        device.start()
        device.served_by([stage.old])
        device.want(stage.new)
        for _ in range(TIMES):
            server.up()
            device.fleet.pump(0.05)
            server.down()
            device.fleet.pump(0.02)
            if device.serves() not in (stage.old.digest, stage.new.digest):
                raise Fault("nothing serves while the server is down")
        server.up()
        device.committed(stage.new)
        device.truthful()
        device.tidy(stage.old, stage.new)


def _never(site: Site, point: str) -> None:
    """A server that never gets better: the update ends with a reason, the old release serves."""
    stage = site.stage
    with (
        Server(site.folder / "s", stage.repository, lambda number: point) as server,
        site.device(before="one", url=server.url) as device,
    ):
        device.start()
        device.want(stage.new)
        device.rests_or_gives_up(stage.new)
        said = device.truthful()
        if said.active != stage.old or not said.reason:
            raise Fault(f"{said.active} serves: {said.reason}")
        device.served_by([stage.old])
        device.want(stage.old)
        device.committed(stage.old)
        device.truthful()


NEVER = ("drop", "cut", "long", "error", "nonsense", *WRONG)


def _slow_loris(site: Site, point: str) -> None:
    """An answer that never ends: it serves on, and the end of the update is reported."""
    stage = site.stage
    with (
        Server(site.folder / "s", stage.repository, _plan("stall", int(point))) as server,
        site.device(before="one", url=server.url) as device,
    ):
        device.start()
        device.served_by([stage.old])
        device.want(stage.new)
        device.fleet.pump(1.0)
        if device.serves() != stage.old.digest:
            raise Fault("the old release does not serve while the server stalls")
        device.until(
            lambda: device.serves() == stage.new.digest, "the end of a stalled answer", 90.0
        )
        device.committed(stage.new)
        device.truthful()


CASES = [
    Case(
        name="server_request",
        what="each request of an update answered in each wrong way",
        points=_points,
        run=_run,
    ),
    Case(
        name="server_restarts",
        what=f"a server that goes down and up {TIMES} times in one update",
        points=lambda site: ["plain", "slow"],
        run=_down_and_up,
    ),
    Case(
        name="server_never",
        what="a server that answers every request wrongly",
        points=lambda site: site.some(NEVER, 3),
        run=_never,
    ),
    Case(
        name="server_stalls",
        what="an answer that stops in the middle and never ends",
        points=lambda site: [] if site.quick else ["2", "7"],
        run=_slow_loris,
    ),
]
