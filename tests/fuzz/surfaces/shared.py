"""Shared memory: frames with whatever descriptors beside them."""

import array
import fcntl
import os
import socket
from pathlib import Path

import numpy as np

from edge_agent.serving import frames
from edge_agent.serving.frames import Answers, Attach, Attached, Failure, PredictShared
from tests.fuzz.forms import BYTES, MSGPACK
from tests.fuzz.mutator import Case
from tests.fuzz.served import WINDOWS, Served
from tests.fuzz.surface import Surface
from tests.fuzz.surfaces.frames import SAMPLES, connected, read

KINDS = ("sealed", "open", "pipe", "socket", "null", "folder", "file", "eventfd")
SIZE = 4096


class SharedMemory(Surface):
    """One connection for each input: a region is attached, windows in it are asked about.

    The first part says which descriptors come along: kind, how many, size in units of 64 bytes,
    and whether they come before, with or after the frame.
    """

    name = "shared-memory"
    forms = (BYTES, MSGPACK, MSGPACK)

    def __init__(self, folder: Path) -> None:
        self._served = Served(folder, WINDOWS)
        self._folder = folder
        attach = Attach(id=1, region=1, size=SIZE)
        predicts = [
            PredictShared(id=2, region=1, offset=0, shape=SAMPLES.shape),
            PredictShared(id=2, region=1, offset=64, shape=(1, 8, 2), model=WINDOWS),
        ]
        self.seeds = [
            (bytes([0, 1, SIZE // 64, 1]), _body(attach), _body(predict)) for predict in predicts
        ]

    def counted(self) -> int:
        return self._served.engine.tally.refused_requests

    def feed(self, case: Case) -> int:
        plan, attach, predict = case
        kind, count, size, when = (plan + bytes(4))[:4]
        refusals = 0
        with connected(self._served) as peer:
            descriptors = [self._descriptor(kind, 64 * size) for _ in range(count % 12)]
            try:
                _send(peer, attach, descriptors, when % 3)
                answer = read(peer)
                refusals += isinstance(answer, Failure)
                peer.sendall(frames.HEADER.pack(len(predict)) + predict)
                answer = read(peer)
                refusals += isinstance(answer, Failure)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        return refusals

    def check(self) -> None:
        with connected(self._served) as peer:
            descriptor = self._descriptor(0, SIZE)
            try:
                _send(peer, self.seeds[0][1], [descriptor], 1)
            finally:
                os.close(descriptor)
            assert isinstance(read(peer), Attached)
            peer.sendall(frames.HEADER.pack(len(self.seeds[0][2])) + self.seeds[0][2])
            assert isinstance(read(peer), Answers)

    def close(self) -> None:
        self._served.close()

    def _descriptor(self, kind: int, size: int) -> int:
        match KINDS[kind % len(KINDS)]:
            case "sealed" | "open" as chosen:
                descriptor = os.memfd_create("windows", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
                os.truncate(descriptor, size)
                os.pwrite(descriptor, np.resize(SAMPLES, size // 4).tobytes(), 0)
                if chosen == "sealed":
                    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
                return descriptor
            case "pipe":
                left, right = os.pipe()
                os.close(right)
                return left
            case "socket":
                return socket.socket(socket.AF_UNIX).detach()
            case "null":
                return os.open(os.devnull, os.O_RDWR)
            case "folder":
                return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            case "file":
                return os.open(self._folder / "plain", os.O_RDWR | os.O_CREAT)
            case _:
                return os.eventfd(0)


def _send(peer: socket.socket, body: bytes, descriptors: list[int], when: int) -> None:
    data = frames.HEADER.pack(len(body)) + body
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    split = (1, len(data), len(data) - 1)[when]
    sent = 0
    if split > 1 and when != 1:
        peer.sendall(data[:split])
        sent = split
    count = peer.sendmsg([data[sent:]], ancillary if descriptors else [])
    peer.sendall(data[sent + count :])


def _body(frame: frames.Request) -> bytes:
    return frames.encode(frame)[frames.HEADER.size :]
