"""What a guest, a hypervisor or a client may say, outside of RFB: each parser, fed with anything.

Nothing but the parser's own error may come of it, and nothing else when the same bytes come one at
a time. A copy's receiver writes into a real directory, and nothing beside it may change.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from vmconnect.broker.order import BadOrderError, ForeignOrderError, Order
from vmconnect.direct import job_status, named_call
from vmconnect.direct.agent.protocol import AgentParser
from vmconnect.direct.copy.directory import Directory
from vmconnect.direct.copy.frames import Fault, FrameError
from vmconnect.direct.copy.reader import FrameReader
from vmconnect.direct.copy.receiver import Named, Receiver, StoppedError
from vmconnect.direct.facts import parse_facts
from vmconnect.direct.forward.socks import SocksNegotiation
from vmconnect.errors import VmconnectError
from vmconnect.hypervisor.qmp import QmpParser
from vmconnect.vsock.message import MessageParser

__all__ = ["GUESTS"]

Outcome = list[object]
Reader = Callable[[Iterable[bytes]], Outcome]


def _agent(pieces: Iterable[bytes]) -> Outcome:
    parser = AgentParser()
    return [each for piece in pieces for each in parser.receive(piece)]


def _qmp(pieces: Iterable[bytes]) -> Outcome:
    parser = QmpParser()
    return [each for piece in pieces for each in parser.receive(piece)]


def _socks(pieces: Iterable[bytes]) -> Outcome:
    client = SocksNegotiation()
    for piece in pieces:
        client.feed(piece)
    return [client.request, client.replies, client.early]


def _vhost_user(pieces: Iterable[bytes]) -> Outcome:
    parser, found = MessageParser(), []
    for piece in pieces:
        rest = piece
        while rest:
            part, rest = rest[: parser.wanted], rest[parser.wanted :]
            if message := parser.feed(part):
                found.append((message, message.name))
    return list(found)


def _outcome(read: Reader, pieces: Iterable[bytes]) -> Outcome | str:
    try:
        return read(pieces)
    except VmconnectError as error:
        return type(error).__name__


def _cut(read: Reader, data: bytes) -> None:
    whole = _outcome(read, [data])
    # Of what is wrong further on, the good that came before it was given sooner.
    assert whole == _outcome(read, (data[i : i + 1] for i in range(len(data))))


def _texts(data: bytes) -> None:
    for read in (job_status.statuses, named_call.statuses, parse_facts, Order.from_bytes):
        try:
            read(data)
        except (VmconnectError, BadOrderError, ForeignOrderError):
            continue


def _seen(directory: Path) -> list[tuple[str, int, bytes]]:
    return [
        (str(path), path.stat().st_mode, path.read_bytes())
        for path in sorted(directory.iterdir())
        if path.is_file()
    ]


def _copy(data: bytes) -> None:
    place = memoryview(data)

    def read_into(view: memoryview) -> int:
        nonlocal place
        count = min(len(view), len(place))
        view[:count], place = place[:count], place[count:]
        return count

    faults: list[Fault] = []
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name, "in")
        inside.mkdir()
        Path(name, "precious").write_bytes(b"precious")
        before = _seen(Path(name))
        names = [Named(b"one"), Named(b"", b"*"), Named(b".")]
        receiver = Receiver(
            Directory.open(os.fsencode(inside)), b"in", names, faults.append, lost=faults.append
        )
        frames = FrameReader(read_into)
        try:
            while True:
                receiver.take(*frames.take())
        except (EOFError, FrameError, StoppedError):
            receiver.close()
        assert _seen(Path(name)) == before, "outside of where the copy was to go"
        inside.chmod(0o700)
        assert sorted(each.name for each in Path(name).iterdir()) == ["in", "precious"]


GUESTS: dict[str, Callable[[bytes], None]] = {
    "agent": lambda data: _cut(_agent, data),
    "qmp": lambda data: _cut(_qmp, data),
    "socks": lambda data: _cut(_socks, data),
    "vhost-user": lambda data: _cut(_vhost_user, data),
    "texts": _texts,
    "copy": _copy,
}
"""By name: a function of bytes that raises if something is wrong."""
