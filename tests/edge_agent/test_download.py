"""Downloads from real servers that do what they like."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_agent import download
from edge_agent.download import Downloader, Pace
from edge_agent.timed_http import TimedHttp
from edge_core.errors import Unavailable
from tests.simulators.bad_http import BadHttp, Behaviour, Request, attempts

DATA = np.random.default_rng(3).bytes(200_000)
QUICK = Pace(stall_seconds=0.5, least=100_000)


@contextmanager
def source(*plan: Behaviour, data: bytes = DATA) -> Iterator[BadHttp]:
    with BadHttp(data, *plan) as server:
        yield server


def downloader(pace: Pace = QUICK) -> Downloader:
    return Downloader(TimedHttp(stall_seconds=pace.stall_seconds), pace)


def fetch(server: BadHttp, part: Path, pace: Pace = QUICK) -> list[str]:
    """Fetch the file whatever it takes; the refusals on the way."""
    return attempts(lambda: downloader(pace).fetch(server.url, len(DATA), part))


def test_a_good_server_gives_the_file_in_one_request(tmp_path: Path) -> None:
    with source() as server:
        assert fetch(server, tmp_path / "part") == []
        assert (tmp_path / "part").read_bytes() == DATA
        assert server.ranges == [None]


def test_a_file_that_is_cut_again_and_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    def cut(request: Request) -> None:
        request.cut_after(60_000)

    with source(cut, cut, cut, Request.well) as server:
        refusals = fetch(server, tmp_path / "part")
        assert len(refusals) == 3
        assert (tmp_path / "part").read_bytes() == DATA
        assert server.ranges == [None, "bytes=60000-", "bytes=120000-", "bytes=180000-"]


def test_a_part_outlasts_the_process_and_is_asked_for_by_its_validator(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def well(request: Request) -> None:
        seen.append(request.if_range)
        request.well()

    with source(lambda request: request.cut_after(1000), well) as server:
        with pytest.raises(Unavailable):
            downloader().fetch(server.url, len(DATA), tmp_path / "part")
        downloader().fetch(server.url, len(DATA), tmp_path / "part")
        assert seen == ['"one"']
        assert (tmp_path / "part").read_bytes() == DATA


def test_another_file_of_the_same_name_is_taken_from_its_beginning(tmp_path: Path) -> None:
    def other(request: Request) -> None:
        assert request.if_range == '"one"'
        request.head(200, Content_Length=len(DATA), ETag='"two"')
        request.send(DATA)

    part = tmp_path / "part"
    with source(lambda request: request.cut_after(1000), other) as server:
        with pytest.raises(Unavailable):
            downloader().fetch(server.url, len(DATA), part)
        part.write_bytes(b"x" * 1000)
        downloader().fetch(server.url, len(DATA), part)
        assert part.read_bytes() == DATA


def _no_ranges(request: Request) -> None:
    request.head(200, Content_Length=len(DATA))
    request.send(DATA)


def _range(text: str) -> Behaviour:
    def behave(request: Request) -> None:
        rest = DATA[request.start :]
        request.head(206, Content_Length=len(rest), Content_Range=text)
        request.send(rest)

    return behave


def _wrong_length(request: Request) -> None:
    where = f"bytes {request.start}-{len(DATA) - 1}/{len(DATA)}"
    request.head(206, Content_Length=17, Content_Range=where)
    request.send(DATA[request.start :])


def _many_parts(request: Request) -> None:
    request.head(206, Content_Type="multipart/byteranges; boundary=x", Content_Length=3)
    request.send(b"--x")


def _not_satisfiable(request: Request) -> None:
    request.head(416, Content_Length=0, Content_Range=f"bytes */{len(DATA)}")


@pytest.mark.parametrize(
    "wrong",
    [
        _no_ranges,
        _range(f"bytes 50000-{len(DATA) - 1}/{len(DATA)}"),
        _range(f"bytes 70000-{len(DATA) - 1}/{len(DATA)}"),
        _range(f"bytes 60000-{len(DATA) + 5}/{len(DATA) + 6}"),
        _range("bytes 60000-"),
        _range("pages 1-2/3"),
        _range("\x01\x02"),
        _range(f"bytes 60000-{'9' * 400}/*"),
        _wrong_length,
        _many_parts,
        _not_satisfiable,
    ],
)
def test_a_wrong_answer_to_a_range_is_not_pasted_to_what_is_there(
    tmp_path: Path, wrong: Behaviour
) -> None:
    with source(lambda request: request.cut_after(60_000), wrong, Request.well) as server:
        assert len(fetch(server, tmp_path / "part")) == 1
        assert (tmp_path / "part").read_bytes() == DATA
        assert server.ranges[1] == "bytes=60000-"
        assert server.ranges[2:] in ([], [None])


@pytest.mark.parametrize("announced", [10, len(DATA) - 1, len(DATA) + 1, 10**12])
def test_a_file_of_another_length_is_refused_before_it_is_stored(
    tmp_path: Path, announced: int
) -> None:
    def other(request: Request) -> None:
        request.head(200, Content_Length=announced)
        request.send(DATA)

    with (
        source(other) as server,
        pytest.raises(Unavailable, match=f"announces {announced} bytes; .* has {len(DATA)}"),
    ):
        downloader().fetch(server.url, len(DATA), tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_ends_fills_no_disk(tmp_path: Path) -> None:
    def endless(request: Request) -> None:
        request.head(200)
        while True:
            request.send(DATA)

    with source(endless) as server, pytest.raises(Unavailable, match="sends more than"):
        downloader(Pace(stall_seconds=5)).fetch(server.url, 1000, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def _slow_status_line(request: Request) -> None:
    request.dribble(b"HTTP/1.1 200 " + b"O" * 1000, 0.05)


def _slow_headers(request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\n")
    request.dribble(b"X-Long: " + b"y" * 1000, 0.05)


def _slow_body(request: Request) -> None:
    request.head(200, Content_Length=len(DATA))
    request.dribble(DATA, 0.05)


def _slow_chunk_sizes(request: Request) -> None:
    request.head(200, Transfer_Encoding="chunked")
    request.dribble(b"0" * 1000, 0.05)


def _silent(request: Request) -> None:
    time.sleep(3)


def _silent_in_the_middle(request: Request) -> None:
    request.head(200, Content_Length=len(DATA))
    request.send(DATA[:1000])
    time.sleep(3)


@pytest.mark.parametrize(
    "slow",
    [
        _slow_status_line,
        _slow_headers,
        _slow_body,
        _slow_chunk_sizes,
        _silent,
        _silent_in_the_middle,
    ],
)
def test_a_server_that_crawls_is_left(tmp_path: Path, slow: Behaviour) -> None:
    with source(slow) as server, pytest.raises(Unavailable, match=r"slow|timed out"):
        downloader().fetch(server.url, len(DATA), tmp_path / "part")


@pytest.mark.parametrize("status", [204, 301, 403, 404, 500, 503])
def test_a_status_is_named_and_keeps_what_is_there(tmp_path: Path, status: int) -> None:
    part = tmp_path / "part"
    part.write_bytes(DATA[:60_000])
    with (
        source(lambda request: request.head(status, Content_Length=0)) as server,
        pytest.raises(Unavailable, match=f"status {status}"),
    ):
        downloader().fetch(server.url, len(DATA), part)
    assert part.stat().st_size == 60_000


@pytest.mark.parametrize(
    "noise", [b"", b"\x00" * 50, b"HTTP/9.9 what\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"]
)
def test_noise_is_no_answer(tmp_path: Path, noise: bytes) -> None:
    def behave(request: Request) -> None:
        request.send(noise)
        request.cut()

    with source(behave) as server, pytest.raises(Unavailable):
        downloader().fetch(server.url, len(DATA), tmp_path / "part")


def test_redirects_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    def around(request: Request) -> None:
        request.head(302, Location="/again", Content_Length=0)

    with source(around) as server, pytest.raises(Unavailable, match="redirect"):
        downloader().fetch(server.url, len(DATA), tmp_path / "part")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        downloader().fetch("http://127.0.0.1:9/file", 10, tmp_path / "part")


def test_a_limited_download_sleeps_as_long_as_the_limit_asks(tmp_path: Path) -> None:
    slept: list[float] = []
    pace = Pace(most=50_000, stall_seconds=5)
    limited = Downloader(
        TimedHttp(stall_seconds=5), pace, monotonic=lambda: sum(slept), sleep=slept.append
    )
    with source() as server:
        limited.fetch(server.url, len(DATA), tmp_path / "part")
    assert sum(slept) == pytest.approx(len(DATA) / 50_000)
    assert max(slept) <= 1 / download.SLICES_PER_SECOND + 1e-9
    assert (tmp_path / "part").read_bytes() == DATA


def test_our_own_limit_does_not_make_a_server_look_slow() -> None:
    pace = Pace(most=100, least=1024)
    assert pace.seconds_for(1000) > 1000 / 100


def test_a_download_can_be_ended_from_another_thread_and_allowed_again(tmp_path: Path) -> None:
    http = TimedHttp(stall_seconds=30)
    begun = threading.Event()

    def slow(request: Request) -> None:
        request.head(200, Content_Length=len(DATA))
        request.send(DATA[:1000])
        begun.set()
        time.sleep(30)

    with source(slow, Request.well) as server:
        found = Downloader(http, Pace(stall_seconds=30))
        ender = threading.Thread(target=lambda: (begun.wait(), http.cancel()))
        ender.start()
        with pytest.raises(Unavailable, match="was ended"):
            found.fetch(server.url, len(DATA), tmp_path / "part")
        ender.join()
        with pytest.raises(Unavailable, match="was ended"):
            found.fetch(server.url, len(DATA), tmp_path / "part")
        http.renew()
        found.fetch(server.url, len(DATA), tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == DATA


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    found = downloader()
    with source(lambda request: request.cut_after(1000)) as server:

        def once() -> None:
            with pytest.raises(Unavailable):
                found.fetch(server.url, len(DATA), tmp_path / "part")

        once()
        before = len(list(descriptors.iterdir()))
        for _ in range(20):
            once()
        # The server's side of the last connections may still be closing.
        assert len(list(descriptors.iterdir())) <= before + 3
