"""SASL, against a server that the test plays: by Cyrus, and where that is missing by scramp."""

from __future__ import annotations

import base64
import contextlib
import ssl

import pytest
from scramp import ScramMechanism

from vmconnect.errors import AuthenticationError, RfbError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.security import cyrus
from vmconnect.vnc.security.sasl_tunnel import SaslTunnel
from vmconnect.vnc.states import State

from .login import PASSWORD, USER, finish, start
from .wire import long, string


@pytest.fixture(params=[True, False], ids=["cyrus", "scramp"])
def with_cyrus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(cyrus, "_library", lambda: None)
    elif not cyrus.available():
        pytest.skip("needs Cyrus SASL (apt install libsasl2-modules)")
    return bool(request.param)


def mechanisms(*names: str) -> bytes:
    return string(",".join(names).encode())


def said(data: bytes, *, complete: bool) -> bytes:
    return string(data + b"\0") + bytes((complete,))


def sent_start(engine: Engine, name: str) -> bytes:
    """Return what the engine begins a mechanism with."""
    sent = engine.data_to_send()
    head = string(name.encode())
    assert sent.startswith(head)
    assert sent[len(head) :] == string(sent[len(head) + 4 :])
    assert sent[-1:] == b"\0"
    return sent[len(head) + 4 : -1]


def scram(engine: Engine, name: str, *, password: str = PASSWORD) -> tuple[bytes, bytes]:
    """Play SCRAM up to the end; return what the server says first and last."""
    mechanism = ScramMechanism(name)
    known = mechanism.make_auth_info(password)
    server = mechanism.make_server(lambda _user: known)
    server.set_client_first(sent_start(engine, name).decode())
    first = server.get_server_first().encode()
    engine.receive(said(first, complete=False))
    sent = engine.data_to_send()
    server.set_client_final(sent[4:-1].decode())
    return first, server.get_server_final().encode()


@pytest.mark.usefixtures("with_cyrus")
@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("late", [False, True])
def test_scram(name: str, late: bool) -> None:
    engine = start(20, policy=Policy())
    engine.receive(mechanisms("NTLM", name, "PLAIN"))
    _, final = scram(engine, name)
    engine.receive(said(final, complete=not late))
    if late:
        # Some say that it is over in a message of its own.
        assert engine.data_to_send() == string(b"")
        engine.receive(said(b"", complete=True))
    finish(engine)


@pytest.mark.usefixtures("with_cyrus")
def test_a_server_with_an_odd_name() -> None:
    """Cyrus SASL wants one that can be; then it is made without."""
    engine = start(20, policy=Policy(server_name="a" * 64 + ".ü"))
    engine.receive(mechanisms("SCRAM-SHA-256"))
    scram(engine, "SCRAM-SHA-256")


@pytest.mark.usefixtures("with_cyrus")
def test_scram_against_a_server_that_does_not_know_us() -> None:
    """A server without the password can be content with anything: we are not."""
    engine = start(20)
    engine.receive(mechanisms("SCRAM-SHA-256"))
    sent = sent_start(engine, "SCRAM-SHA-256")
    nonce = sent.split(b"r=")[1] + b"more"
    engine.receive(said(b"r=" + nonce + b",s=c2FsdHNhbHRzYWx0,i=4096", complete=False))
    engine.data_to_send()
    with pytest.raises(AuthenticationError, match="SCRAM-SHA-256 fails"):
        engine.receive(said(b"v=" + base64.b64encode(bytes(32)), complete=True))


@pytest.mark.usefixtures("with_cyrus")
def test_scram_that_ends_too_soon() -> None:
    engine = start(20)
    engine.receive(mechanisms("SCRAM-SHA-256"))
    nonce = sent_start(engine, "SCRAM-SHA-256").split(b"r=")[1] + b"more"
    with pytest.raises(RfbError, match="before the server has proved who it is"):
        engine.receive(said(b"r=" + nonce + b",s=c2FsdHNhbHRzYWx0,i=4096", complete=True))


@pytest.mark.usefixtures("with_cyrus")
@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"r=%s,s=c2FsdHNhbHRzYWx0,i=2000001", "2000001 rounds|iteration-count is too big"),
        (b"r=%s,s=c2FsdHNhbHRzYWx0", "SCRAM-SHA-256"),
        (b"\xff", "what is no text|SCRAM-SHA-256 fails"),
        (b"r=other,s=c2FsdHNhbHRzYWx0,i=4096", "SCRAM-SHA-256 fails"),
        (b"e=unknown-user,i=1", "SCRAM-SHA-256 fails"),
    ],
)
def test_scram_that_is_broken(answer: bytes, match: str) -> None:
    engine = start(20)
    engine.receive(mechanisms("SCRAM-SHA-256"))
    nonce = sent_start(engine, "SCRAM-SHA-256").split(b"r=")[1] + b"more"
    if b"%s" in answer:
        answer = answer.replace(b"%s", nonce)
    with pytest.raises((RfbError, AuthenticationError), match=match):
        engine.receive(said(answer, complete=False))


@pytest.mark.usefixtures("with_cyrus")
def test_sasl_plain_is_for_private_connections() -> None:
    engine = start(20)
    engine.receive(mechanisms("NTLM", "PLAIN"))
    text = b"\0" + USER.encode() + b"\0" + PASSWORD.encode()
    assert sent_start(engine, "PLAIN") == text
    engine.receive(said(b"", complete=True))
    finish(engine)
    with pytest.raises(AuthenticationError, match="no SASL mechanism that we make here: PLAIN"):
        start(20, policy=Policy()).receive(mechanisms("PLAIN"))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (long(8193), "a list of mechanisms of 8193 bytes"),
        (string(b""), "no SASL mechanism that we make here: none"),
        (mechanisms("ANONYMOUS") + long(65537), "65537 bytes of one message"),
        (mechanisms("ANONYMOUS") + said(b"", complete=False) * 17, "a login without end"),
    ],
)
def test_sasl_that_is_broken(data: bytes, match: str) -> None:
    with pytest.raises((RfbError, AuthenticationError), match=match):
        start(20).receive(data)


def test_sasl_within_anonymous_tls() -> None:
    """TLSSASL with a mechanism that has no layer, which QEMU does not take."""
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    settings.set_ciphers("aNULL:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = settings.wrap_bio(to_server, to_client, server_side=True)
    engine = start(19, policy=Policy())
    engine.receive(b"\0\2")
    engine.data_to_send()
    engine.receive(b"\0\1" + long(263))
    assert engine.data_to_send() == long(263)
    engine.receive(b"\1")

    def tell(data: bytes) -> bytes:
        """Say something in the tunnel, and return what is answered."""
        if data:
            server.write(data)
        engine.receive(to_client.read())
        to_server.write(engine.data_to_send())
        with contextlib.suppress(ssl.SSLWantReadError):
            return server.read()
        return b""

    to_server.write(engine.data_to_send())
    for _ in range(2):
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        tell(b"")
    sent = tell(mechanisms("PLAIN"))
    assert sent == long(5) + b"PLAIN" + string(f"\0{USER}\0{PASSWORD}\0".encode())
    tell(said(b"", complete=True))
    tell(long(0))
    assert (engine.state, engine.login.name, engine.tunnelled) == (State.INIT, "TLSSASL", True)


@pytest.mark.parametrize(("bits", "encrypts"), [(1, False), (55, False), (56, True), (256, True)])
def test_layers_that_hide_nothing(bits: int, encrypts: bool) -> None:
    """Such a layer shows who sent what; no server here has one without encryption."""

    class Mechanism(cyrus.CyrusClient):
        strength = bits

        def __init__(self) -> None:
            pass

    engine = Engine()
    engine.enter_tunnel(SaslTunnel(Mechanism()))
    assert engine.tunnelled is encrypts
