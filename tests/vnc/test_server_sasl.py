"""SASL against QEMU, which has Cyrus SASL too: Kerberos, and the layers of mechanisms."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmconnect.deadline import Deadline
from vmconnect.errors import AuthenticationError, RfbError
from vmconnect.streams import Stream
from vmconnect.vnc import Console
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.security import cyrus
from vmconnect.vnc.states import State

from .authority import Authority
from .conftest import PASSWORD, USER, Qemu
from .kerberos import Realm, realm
from .test_server_logins import PATIENCE, Door, check, qemu_door, start_qemu

pytestmark = pytest.mark.usefixtures("sasl")


@pytest.fixture
def kerberos(directory: Path, sasl: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Realm]:
    with realm(directory / "realm", monkeypatch) as made:
        yield made


@pytest.fixture
def door(kerberos: Realm, qemu: Callable[..., Qemu], authority: Authority) -> Door:
    """The door of a QEMU that takes Kerberos and DIGEST-MD5."""
    return qemu_door(start_qemu(qemu, authority, ",sasl=on"), ",sasl=on")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mechanisms that are begun."""
    names: list[str] = []

    class Noted(cyrus.CyrusClient):
        def start(self) -> bytes | None:
            first = super().start()
            names.append(self.name)
            return first

    monkeypatch.setattr(cyrus, "CyrusClient", Noted)
    return names


def never() -> str:
    raise AssertionError("asked")


def kerberos_only(directory: Path) -> None:
    settings = directory / "qemu.conf"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join([*lines[:-1], "mech_list: gssapi", ""]))


@pytest.mark.parametrize("options", [",sasl=on", ",tls-creds=tls0,sasl=on"])
def test_a_ticket_is_enough(
    kerberos: Realm,
    qemu: Callable[..., Qemu],
    authority: Authority,
    made: list[str],
    options: str,
) -> None:
    kerberos.log_in()
    door = qemu_door(start_qemu(qemu, authority, options), options)
    console = Console.open(door.opener, "real", user=never, password=never, timeout=PATIENCE)
    check(console, "TLSSASL" if "tls" in options else "SASL", encrypted=True)
    assert made == ["GSSAPI"]


def test_without_a_ticket_the_next_mechanism_is_made(
    kerberos: Realm, door: Door, made: list[str]
) -> None:
    def console() -> Console:
        return Console.open(
            door.opener, "real", user=lambda: USER, password=lambda: PASSWORD, timeout=PATIENCE
        )

    check(console(), "SASL", encrypted=True)
    kerberos.log_in()
    check(console(), "SASL", encrypted=True)
    kerberos.log_out()
    check(console(), "SASL", encrypted=True)
    assert made == ["DIGEST-MD5", "GSSAPI", "DIGEST-MD5"]


def test_a_password_at_hand_is_used(kerberos: Realm, door: Door, made: list[str]) -> None:
    kerberos.log_in()
    check(door.open(None, USER, PASSWORD), "SASL", encrypted=True)
    assert made == ["DIGEST-MD5"]


def test_neither_ticket_nor_password(
    kerberos: Realm, directory: Path, qemu: Callable[..., Qemu], authority: Authority
) -> None:
    kerberos_only(directory)
    door = qemu_door(start_qemu(qemu, authority, ",sasl=on"), ",sasl=on")
    with pytest.raises(AuthenticationError, match=r"here: GSSAPI; GSSAPI: .*\(have a ticket"):
        door.open(None, USER, PASSWORD)


# The layer.


@pytest.fixture
def digest(qemu: Callable[..., Qemu], authority: Authority) -> Door:
    """The door of a QEMU that takes DIGEST-MD5."""
    return qemu_door(start_qemu(qemu, authority, ",sasl=on"), ",sasl=on")


def test_much_is_sent_in_pieces(digest: Door) -> None:
    with digest.open(None, USER, PASSWORD) as console:
        for _ in range(4):
            console.clipboard.put("long " * 50_000)
        console.refresh(PATIENCE)
        assert console.alive


def greeted(door: Door) -> tuple[Stream, Engine]:
    """Connect, and let the server say its version."""
    stream = door.opener(Deadline(PATIENCE))
    stream.settimeout(PATIENCE)
    engine = Engine(Credentials(PASSWORD, USER))
    engine.receive(stream.recv(12))
    return stream, engine


def log_in(stream: Stream, engine: Engine) -> None:
    while engine.state is not State.NORMAL:
        stream.sendall(engine.data_to_send())
        engine.receive(stream.recv(4096))
    stream.sendall(engine.data_to_send())


def test_many_at_once(digest: Door) -> None:
    """The library is not made for threads."""
    # One after the other: QEMU lets few wait at its door.
    connections = [greeted(digest) for _ in range(8)]
    with ThreadPoolExecutor(len(connections)) as threads:
        list(threads.map(log_in, *zip(*connections, strict=True)))
    assert all(engine.tunnelled for _, engine in connections)
    for stream, _ in connections:
        stream.close()


@pytest.fixture
def logged_in(digest: Door) -> Iterator[tuple[Stream, Engine]]:
    """A connection and its engine, which has made the login and been sent something more."""
    stream, engine = greeted(digest)
    log_in(stream, engine)
    yield stream, engine
    stream.close()


def message(stream: Stream) -> bytes:
    """Return one message of the layer whole, after a length of 4 bytes."""
    head = exactly(stream, 4)
    return head + exactly(stream, int.from_bytes(head))


def exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        assert piece
        data += piece
    return data


def test_messages_that_were_changed(logged_in: tuple[Stream, Engine]) -> None:
    stream, engine = logged_in
    data = bytearray(message(stream))
    data[20] ^= 1
    with pytest.raises(RfbError, match="the layer of DIGEST-MD5 fails"):
        engine.receive(data)
    assert engine.state is State.CLOSED


def test_messages_that_come_twice(logged_in: tuple[Stream, Engine]) -> None:
    stream, engine = logged_in
    data = message(stream)
    engine.receive(data)
    with pytest.raises(RfbError, match="the layer of DIGEST-MD5 fails"):
        engine.receive(data)


@pytest.mark.parametrize("length", [0, 1, 65537, 1 << 24, (1 << 32) - 1])
def test_messages_of_any_length(logged_in: tuple[Stream, Engine], length: int) -> None:
    _, engine = logged_in
    with pytest.raises(RfbError, match="the layer of DIGEST-MD5 fails"):
        engine.receive(length.to_bytes(4) + bytes(min(length, 1024)))


def test_a_message_in_pieces(logged_in: tuple[Stream, Engine]) -> None:
    stream, engine = logged_in
    before = engine.inbox.offset + engine.inbox.available
    *pieces, last = message(stream)
    for piece in pieces:
        engine.receive(bytes((piece,)))
    assert engine.inbox.offset + engine.inbox.available == before
    engine.receive(bytes((last,)))
    assert engine.inbox.offset + engine.inbox.available > before


def test_what_the_library_holds_goes_with_the_connection(
    digest: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[object] = []

    def dispose(library: object, connection: object) -> None:
        gone.append(connection)
        dispose_of(library, connection)  # type: ignore[arg-type]

    dispose_of = cyrus._dispose
    monkeypatch.setattr(cyrus, "_dispose", dispose)
    console = digest.open(None, USER, PASSWORD)
    console.close()
    del console
    gc.collect()
    assert len(gone) == 1
