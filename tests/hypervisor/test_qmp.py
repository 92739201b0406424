"""QMP: the parser by properties, the client against a scripted and a real monitor."""

import contextlib
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypervisor.rig import qemu
from tests.scripted import END, Script
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    HypervisorError,
    QmpError,
)
from vmconnect.hypervisor import PowerState, Qemu, QmpClient
from vmconnect.hypervisor.qmp import QmpParser
from vmconnect.streams import HybridVsock, Tcp, Unix

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'

messages = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    max_size=6,
)


@given(messages, st.data())
def test_messages_come_out_however_the_bytes_are_cut(
    sent: list[dict[str, Any]], data: st.DataObject
) -> None:
    stream = b"".join(json.dumps(message).encode() + b"\r\n" for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = QmpParser()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += parser.receive(stream[start:end])
    assert received == sent


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    parser = QmpParser()
    with contextlib.suppress(QmpError):
        assert all(isinstance(message, dict) for message in parser.receive(data + b"\n"))


def test_a_line_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.hypervisor.qmp.MAX_LINE_BYTES", 1000)
    parser = QmpParser()
    parser.receive(b"x" * 900)
    with pytest.raises(QmpError, match="longer"):
        parser.receive(b"x" * 200)


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(QmpError):
        QmpParser().receive(b"[" * 100_000 + b"\n")


def monitor(*answers: bytes) -> Script:
    """A monitor that says each answer after one more line from the client."""
    script = Script()
    for answer in answers:
        script << answer >> re.compile(rb".*\n")
    return script


READY = b'{"return": {}, "id": 1}\n'


def test_events_and_late_answers_are_sorted_out() -> None:
    answer = (
        b'{"event": "RESET", "data": {"guest": true}, "timestamp": {}}\n'
        b'{"return": "late", "id": 99}\n{"return": 7, "id": 2}\n'
    )
    client = QmpClient(monitor(GREETING, READY, answer), "vm", 5)
    assert client.execute("query-something", timeout=5) == 7
    assert client.wait_event("RESET", 5).data == {"guest": True}


def test_a_refusal_names_the_command() -> None:
    refusal = b'{"error": {"class": "GenericError", "desc": "no such thing"}, "id": 2}\n'
    client = QmpClient(monitor(GREETING, READY, refusal), "vm", 5)
    with pytest.raises(HypervisorError, match="eject: no such thing"):
        client.execute("eject", timeout=5)


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"RFB 003.008\n", QmpError),
        (b'{"hello": 1}\n', QmpError),
        (b"[]\n", QmpError),
        (b"\xff\xfe\n", QmpError),
    ],
)
def test_what_is_no_monitor_is_told(greeting: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        QmpClient(monitor(greeting), "vm", 5)


def test_a_monitor_that_closes_is_told() -> None:
    with pytest.raises(ConnectionLostError, match="closed its monitor"):
        QmpClient(Script() << END, "vm", 5)


def test_a_held_monitor_meets_the_deadline_with_a_hint() -> None:
    with pytest.raises(DeadlineError, match="one at a time"):
        QmpClient(Script(), "vm", 5)


def test_a_real_machine_is_found_and_described(directory: Path) -> None:
    uuid = "0a0b0c0d-0001-4002-8003-000000000004"
    vnc = directory / "one.vnc"
    options = ("-name", "one", "-uuid", uuid, "-vga", "std", "-vnc", f"unix:{vnc}")
    with qemu(directory, "one", *options), qemu(directory, "two", "-vnc", "127.0.0.1:0,to=99"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "two.vsock"))
            found = Qemu(directory).machines(Deadline(10))
        one, two = found
        assert (one.name, one.uuid, one.identity) == ("one", uuid, uuid)
        assert one.state is PowerState.PAUSED
        assert one.console == Unix(str(vnc))
        assert one.guest is None
        assert (two.name, two.uuid) == ("two", None)
        assert isinstance(two.console, Tcp)
        assert two.console.host == "127.0.0.1"
        assert two.guest == HybridVsock(str(directory / "two.vsock"), 22)
        assert Qemu(directory).look_up("one", Deadline(10)) == [one]
        assert Qemu(directory).look_up(uuid, Deadline(10)) == [one]
        assert Qemu(directory).look_up("three", Deadline(10)) == []


def test_dead_sockets_and_held_monitors_do_not_hide_the_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmconnect.hypervisor.qemu.qemu._QUERY_TIMEOUT", 0.3)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(directory / "gone.qmp"))
    note = directory / "held.json"
    note.write_text(json.dumps({"guest": {"user": "root", "endpoint": "vsock-mux/run/x"}}))
    note.chmod(0o600)
    with qemu(directory, "held"), qemu(directory, "live"):
        with QmpClient.connect(Unix(str(directory / "held.qmp"))):
            held, live = Qemu(directory).machines(Deadline(10))
        assert (held.name, held.state) == ("held", PowerState.UNKNOWN)
        assert held.note.user == "root"
        assert held.guest == HybridVsock("/run/x", 22)
        assert (live.name, live.state) == ("live", PowerState.PAUSED)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"guest": 3}', '{"guest": {"user": 5}}', "[" * 9000]
)
def test_a_senseless_note_says_nothing(directory: Path, content: str) -> None:
    (directory / "m.json").write_text(content)
    with qemu(directory, "m"):
        (machine,) = Qemu(directory).machines(Deadline(10))
    assert machine.note.user is None
    assert machine.guest is None


def test_a_note_that_others_may_write_says_nothing(directory: Path) -> None:
    note = directory / "m.json"
    note.write_text(json.dumps({"guest": {"user": "mallory"}}))
    note.chmod(0o666)
    with qemu(directory, "m"):
        (machine,) = Qemu(directory).machines(Deadline(10))
    assert machine.note.user is None
    os.chmod(note, 0o600)  # noqa: PTH101
