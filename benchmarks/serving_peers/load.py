"""The load of ``benchmarks/serving.py``: a process of its own that shares the server's cores.

Lean on purpose: requests are made beforehand, an answer is looked at as far as needed to know that
it is whole and right, and nothing else is loaded but the standard library. It prints one JSON
object: answers, wrong ones, seconds, latencies, and its own CPU time.

    python load.py socket PATH REQUESTS CONNECTIONS IN_FLIGHT ROWS SECONDS
    python load.py http PORT REQUESTS CONNECTIONS SECONDS

REQUESTS is a file of requests, each after its length as a little-endian u32.
"""

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

WARM_UP_SECONDS = 1.0
BUFFER = 1 << 20
HEADER = 4
ANSWERS = b"\xa7answers"
"""The kind of the frame, after the length and one byte for the array's size."""
SERVED_BY_MODEL = b"\xa5model"
END = b"\r\n\r\n"
LENGTH = b"content-length: "


def read_requests(path: str) -> list[bytes]:
    data = Path(path).read_bytes()
    found, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + HEADER], "little")
        found.append(data[place + HEADER : place + HEADER + size])
        place += HEADER + size
    return found


class Connection:
    """One client with a fixed number of requests under way."""

    __slots__ = ("buffer", "filled", "receive", "send", "sent", "socket", "view")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.send = connected.sendall
        self.receive = connected.recv_into
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.filled = 0
        self.sent: deque[float] = deque()
        """When each request under way was sent; an agent answers one connection in order."""


def frames_done(connection: Connection) -> tuple[int, int]:
    """How many whole answers the buffer holds, and how many of them are wrong."""
    buffer, filled = connection.buffer, connection.filled
    place = done = wrong = 0
    while filled - place >= HEADER:
        end = place + HEADER + int.from_bytes(buffer[place : place + HEADER], "little")
        if end > filled:
            break
        if (
            buffer[place + 5 : place + 13] != ANSWERS
            or buffer.find(SERVED_BY_MODEL, place, end) < 0
        ):
            wrong += 1
        done += 1
        place = end
    keep(connection, place)
    return done, wrong


def bodies_done(connection: Connection) -> tuple[int, int]:
    """The same of HTTP responses that name their length."""
    buffer, filled = connection.buffer, connection.filled
    place = done = wrong = 0
    while (head := buffer.find(END, place, filled)) >= 0:
        named = buffer[place:head].lower()
        at = named.find(LENGTH)
        if at < 0:
            raise SystemExit("a response names no length")
        stop = named.find(b"\r", at)
        size = int(named[at + len(LENGTH) : stop if stop >= 0 else None])
        end = head + len(END) + size
        if end > filled:
            break
        wrong += not named.startswith(b"http/1.1 200")
        done += 1
        place = end
    keep(connection, place)
    return done, wrong


def keep(connection: Connection, place: int) -> None:
    left = connection.filled - place
    if left and place:
        connection.buffer[:left] = connection.buffer[place : connection.filled]
    connection.filled = left


def run(
    connections: list[Connection], requests: list[bytes], in_flight: int, seconds: float, finished
) -> dict[str, float]:  # type: ignore[no-untyped-def]
    poll = select.epoll()
    by_number = {}
    turn = 0
    many = len(requests)
    clock = time.perf_counter
    for connection in connections:
        by_number[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    for _ in range(in_flight):
        for connection in connections:
            connection.sent.append(clock())
            connection.send(requests[turn % many])
            turn += 1
    result: dict[str, float] = {}
    for span in (WARM_UP_SECONDS, seconds):
        latencies: list[float] = []
        wrong = 0
        cpu, began = time.process_time(), clock()
        ends, now = began + span, began
        while now < ends:
            for number, _ in poll.poll(1.0, 256):
                connection = by_number[number]
                count = connection.receive(connection.view[connection.filled :])
                if not count:
                    raise SystemExit("the server closed a connection")
                connection.filled += count
                done, bad = finished(connection)
                wrong += bad
                if not done:
                    continue
                now = clock()
                for _ in range(done):
                    latencies.append(now - connection.sent.popleft())
                    connection.sent.append(now)
                if done == 1:
                    connection.send(requests[turn % many])
                else:
                    connection.send(b"".join(requests[(turn + n) % many] for n in range(done)))
                turn += done
            now = clock()
        latencies.sort()
        answers = len(latencies)
        if not answers:
            raise SystemExit("no answer came in time")
        result = {
            "answers": answers,
            "wrong": wrong,
            "seconds": now - began,
            "p50_us": latencies[answers // 2] * 1e6,
            "p99_us": latencies[min(answers - 1, answers * 99 // 100)] * 1e6,
            "load_cpu_us": (time.process_time() - cpu) * 1e6 / answers,
        }
    return result


def main() -> None:
    kind, place, requests_file, connections = sys.argv[1:5]
    requests = read_requests(requests_file)
    made = []
    for _ in range(int(connections)):
        if kind == "socket":
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(place)
        else:
            connected = socket.create_connection(("127.0.0.1", int(place)))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.append(Connection(connected))
    if kind == "socket":
        found = run(made, requests, int(sys.argv[5]), float(sys.argv[6]), frames_done)
    else:
        found = run(made, requests, 1, float(sys.argv[5]), bodies_done)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
