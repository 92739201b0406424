"""Logins against servers that the test plays: those that no server here has, and broken ones.

The servers' halves are written from rfbproto, apart from the client's, which they do not use.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramMechanism

from vmconnect.errors import AuthenticationError, RfbError, TrustError, VmconnectError
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Connected
from vmconnect.vnc.policy import Policy, ServerKey
from vmconnect.vnc.security import LOGINS, cyrus, login_name
from vmconnect.vnc.security.sasl_tunnel import SaslTunnel
from vmconnect.vnc.security.vncauth import response
from vmconnect.vnc.states import State

from .wire import long, server_init, string, words

USER, PASSWORD = "älice", "öpen sesame"
VERSION = b"RFB 003.008\n"
PRIVATE = Policy(private=True)


def start(
    number: int,
    *,
    policy: Policy = PRIVATE,
    user: str | None = USER,
    password: str | None = PASSWORD,
) -> Engine:
    """Return an engine to which a security type has just been given."""
    engine = Engine(Credentials(password, user), policy=policy)
    engine.receive(VERSION + bytes((1, number)))
    assert engine.data_to_send().startswith(VERSION + bytes((number,)))
    return engine


def finish(engine: Engine) -> None:
    """Let the server be content."""
    engine.receive(long(0))
    assert engine.data_to_send() == b"\1"
    assert engine.receive(server_init(4, 3, b"desk")) == [Connected(4, 3, "desk")]


# Plain and its like.


def test_tight_without_a_login() -> None:
    engine = start(16, password=None, user=None)
    engine.receive(long(0) + long(0))
    assert engine.login.name == "None"
    engine.receive(long(0))
    assert engine.data_to_send() == b"\1"
    counts = words(1, 2, 0, 0)
    assert engine.receive(server_init(4, 3) + counts) == []
    assert engine.receive(bytes(3 * 16)) == [Connected(4, 3, "desk")]


def capability(code: int, vendor: bytes, signature: bytes) -> bytes:
    return struct.pack(">i4s8s", code, vendor, signature)


NO_TUNNEL = capability(0, b"TGHT", b"NOTUNNEL")


def test_tight_with_a_tunnel_and_a_password() -> None:
    engine = start(16, user=None, password="secret")  # noqa: S106 (no secret)
    engine.receive(long(2) + capability(7, b"TGHT", b"OTHERTUN") + NO_TUNNEL)
    assert engine.data_to_send() == long(0)
    # A number that means something else without its vendor and signature.
    liar = capability(1, b"EVIL", b"NOAUTH__")
    engine.receive(long(2) + liar + capability(2, b"STDV", b"VNCAUTH_"))
    assert engine.data_to_send() == long(2)
    challenge = secrets.token_bytes(16)
    engine.receive(challenge)
    assert engine.data_to_send() == response(challenge, "secret")
    engine.receive(long(0))
    assert engine.login.name == "VncAuth"


def test_tight_with_a_unix_login() -> None:
    offer = long(0) + long(1) + capability(129, b"TGHT", b"ULGNAUTH")
    engine = start(16)
    engine.receive(offer)
    user, password = USER.encode(), PASSWORD.encode()
    sent = long(129) + long(len(user)) + long(len(password)) + user + password
    assert engine.data_to_send() == sent
    with pytest.raises(TrustError, match="show the password to who listens: Unix login"):
        start(16, policy=Policy()).receive(offer)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (long(1) + capability(7, b"TGHT", b"OTHERTUN"), "no tunnel that is none"),
        (long(1025), "1025 capabilities"),
        (long(0) + long(1) + capability(5, b"EVIL", b"NOAUTH__"), "no login that we can make"),
    ],
)
def test_tight_that_is_broken(data: bytes, match: str) -> None:
    with pytest.raises((RfbError, AuthenticationError), match=match):
        start(16).receive(data)


# Diffie and Hellman's.

PRIME = (1 << 521) - 1
"""A Mersenne prime."""


def apple_parameters(private: int, size: int = 66) -> bytes:
    public = pow(2, private, PRIME)
    return words(2, size) + PRIME.to_bytes(size) + public.to_bytes(size)


def test_apple_dh() -> None:
    engine = start(30, policy=Policy())
    private = secrets.randbits(500)
    engine.receive(apple_parameters(private))
    sent = engine.data_to_send()
    assert len(sent) == 128 + 66
    shared = pow(int.from_bytes(sent[128:]), private, PRIME)
    key = hashlib.md5(shared.to_bytes(66)).digest()  # noqa: S324 (the protocol's)
    decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305
    plain = decryptor.update(sent[:128])
    assert plain[:64].split(b"\0")[0].decode() == USER
    assert plain[64:].split(b"\0")[0].decode() == PASSWORD
    finish(engine)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (words(2, 15), "a key of 15 bytes"),
        (words(2, 1025), "a key of 1025 bytes"),
        (words(2, 16) + bytes(32), "numbers that make no secret"),
        (words(2, 66) + PRIME.to_bytes(66) + (1).to_bytes(66), "numbers that make no secret"),
        (words(2, 66) + PRIME.to_bytes(66) + (PRIME - 1).to_bytes(66), "make no secret"),
    ],
)
def test_apple_dh_that_is_broken(data: bytes, match: str) -> None:
    with pytest.raises(RfbError, match=match):
        start(30).receive(data)


def test_apple_dh_has_little_room() -> None:
    with pytest.raises(AuthenticationError, match="a password of at most 63 bytes"):
        start(30, password="x" * 64).receive(apple_parameters(12345))


def test_mslogon() -> None:
    modulus, generator, private = (1 << 61) - 1, 3, secrets.randbits(60)
    public = pow(generator, private, modulus)
    engine = start(113)
    engine.receive(struct.pack(">QQQ", generator, modulus, public))
    sent = engine.data_to_send()
    assert len(sent) == 8 + 256 + 64
    shared = pow(int.from_bytes(sent[:8]), private, modulus).to_bytes(8)
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in shared)

    def opened(data: bytes) -> str:
        decryptor = Cipher(TripleDES(key * 3), modes.CBC(shared)).decryptor()
        return decryptor.update(data).split(b"\0")[0].decode()

    assert opened(sent[8:264]) == USER
    assert opened(sent[264:]) == PASSWORD
    finish(engine)
    # 64 bits keep nothing from who listens.
    with pytest.raises(TrustError, match="MSLogonII"):
        Engine(Credentials(PASSWORD, USER)).receive(VERSION + bytes((1, 113)))


def test_mslogon_that_is_broken() -> None:
    with pytest.raises(RfbError, match="numbers that make no secret"):
        start(113).receive(bytes(24))
    with pytest.raises(AuthenticationError, match="63 bytes at most: 64"):
        start(113, password="x" * 64).receive(struct.pack(">QQQ", 3, (1 << 61) - 1, 12345))


# RA2.


class Eax:
    """One direction, as the paper has it: OMAC over a number's block and the message."""

    def __init__(self, key: bytes):
        self.key = key
        self.count = 0

    def omac(self, number: int, data: bytes) -> bytes:
        cmac = CMAC(algorithms.AES(self.key))
        cmac.update(bytes(15) + bytes((number,)) + data)
        return cmac.finalize()

    def __call__(self, data: bytes, *, opens: bool) -> tuple[bytes, bytes]:
        """Return a message's text or secret, and its MAC."""
        nonce = self.omac(0, self.count.to_bytes(16, "little"))
        self.count += 1
        flow = Cipher(algorithms.AES(self.key), modes.CTR(nonce)).encryptor()
        other = flow.update(data)
        header = self.omac(1, struct.pack(">H", len(data)))
        body = self.omac(2, data if opens else other)
        mac = bytes(a ^ b ^ c for a, b, c in zip(nonce, header, body, strict=True))
        return other, mac

    def seal(self, data: bytes) -> bytes:
        secret, mac = self(data, opens=False)
        return struct.pack(">H", len(data)) + secret + mac

    def open(self, message: bytes) -> bytes:
        (length,) = struct.unpack_from(">H", message)
        assert len(message) == 2 + length + 16
        text, mac = self(message[2 : 2 + length], opens=True)
        assert hmac.compare_digest(mac, message[-16:])
        return text


SERVER_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 (the least that is taken)
Digest = Callable[[bytes], bytes]


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()  # noqa: S324 (the protocol's)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Ra2Server:
    """The server's half, step by step."""

    def __init__(self, engine: Engine, size: int, digest: Digest):
        self.engine = engine
        self.size = size
        self.digest = digest
        numbers = SERVER_KEY.public_key().public_numbers()
        self.blob = long(1024) + numbers.n.to_bytes(128) + numbers.e.to_bytes(128)
        self.random = secrets.token_bytes(size)

    def greet(self) -> None:
        self.engine.receive(self.blob)
        sent = self.engine.data_to_send()
        self.theirs = sent[: 4 + 256 + 256]
        modulus, exponent = int.from_bytes(sent[4:260]), int.from_bytes(sent[260:516])
        self.public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        assert sent[516:518] == words(128)
        random = SERVER_KEY.decrypt(sent[518:], padding.PKCS1v15())
        self.opening = Eax(self.digest(self.random + random)[: self.size])
        self.sealing = Eax(self.digest(random + self.random)[: self.size])

    def prove(self, blob: bytes | None = None) -> None:
        secret = self.public.encrypt(self.random, padding.PKCS1v15())
        self.engine.receive(words(len(secret)) + secret)
        proof = self.opening.open(self.engine.data_to_send())
        assert proof == self.digest(self.theirs + self.blob)
        self.engine.receive(self.sealing.seal(self.digest((blob or self.blob) + self.theirs)))

    def ask(self, wanted: int) -> tuple[str, str]:
        self.engine.receive(self.sealing.seal(bytes((wanted,))))
        answer = self.opening.open(self.engine.data_to_send())
        end = 1 + answer[0]
        assert len(answer) == end + 1 + answer[end]
        return answer[1:end].decode(), answer[end + 1 :].decode()


def ra2(
    number: int, size: int, digest: Digest, policy: Policy | None = None
) -> tuple[Engine, Ra2Server, list[ServerKey]]:
    keys: list[ServerKey] = []
    engine = start(number, policy=policy or Policy(check_key=keys.append))
    return engine, Ra2Server(engine, size, digest), keys


KINDS = [(5, 16, sha1), (6, 16, sha1), (129, 32, sha256), (130, 32, sha256)]


@pytest.mark.parametrize(("number", "size", "digest"), KINDS)
@pytest.mark.parametrize("wanted", [1, 2])
def test_ra2(number: int, size: int, digest: Digest, wanted: int) -> None:
    engine, server, keys = ra2(number, size, digest)
    server.greet()
    assert keys == [ServerKey("rsa", server.blob)]
    server.prove()
    assert server.ask(wanted) == ((USER if wanted == 1 else ""), PASSWORD)
    if number in {6, 130}:
        finish(engine)
        assert not engine.tunnelled
        return
    assert engine.tunnelled
    assert engine.proved
    # Messages of the tunnel need not be those of RFB, and come in any pieces.
    data = server.sealing.seal(long(0)[:1]) + server.sealing.seal(long(0)[1:])
    for byte in data:
        engine.receive(bytes((byte,)))
    assert server.opening.open(engine.data_to_send()) == b"\1"
    init = server_init(4, 3, b"desk")
    pieces = [init[:5], b"", init[5:]]
    events = engine.receive(b"".join(map(server.sealing.seal, pieces)))
    assert events == [Connected(4, 3, "desk")]
    server.opening.open(engine.data_to_send())
    sealed = bytearray(server.sealing.seal(b"\2"))
    sealed[-1] ^= 1
    with pytest.raises(RfbError, match="not as it was sent"):
        engine.receive(sealed)
    assert engine.state is State.CLOSED


def test_ra2_between_whom_somebody_is() -> None:
    engine, server, _ = ra2(129, 32, sha256)
    server.greet()
    other = server.blob[:-1] + b"\0"
    with pytest.raises(TrustError, match="has seen other keys"):
        server.prove(other)
    assert engine.state is State.CLOSED


def test_ra2_asks_about_the_key() -> None:
    _, server, _ = ra2(5, 16, sha1, Policy())
    with pytest.raises(TrustError, match="nobody can tell"):
        server.greet()


def test_ra2_proves() -> None:
    def check(_key: ServerKey) -> None:
        """Be content."""

    _, server, _ = ra2(6, 16, sha1, Policy(check_key=check, verified=True))
    server.greet()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (long(1023), "an RSA key of 1023 bits"),
        (long(8193), "an RSA key of 8193 bits"),
        (long(1024) + bytes(256), "numbers that are no RSA key"),
        (long(1024) + b"\xff" * 256, "numbers that are no RSA key"),
    ],
)
def test_ra2_with_a_broken_key(data: bytes, match: str) -> None:
    with pytest.raises(RfbError, match=match):
        ra2(5, 16, sha1)[0].receive(data)


def test_ra2_with_broken_messages() -> None:
    engine, server, _ = ra2(5, 16, sha1)
    server.greet()
    with pytest.raises(RfbError, match="17 bytes under our key of 2048 bits"):
        engine.receive(words(17))
    engine, server, _ = ra2(5, 16, sha1)
    server.greet()
    server.prove()
    with pytest.raises(RfbError, match="kind 3 of credentials"):
        engine.receive(server.sealing.seal(b"\3"))
    engine, server, _ = ra2(5, 16, sha1)
    server.greet()
    server.prove()
    with pytest.raises(RfbError, match="a message of 2 bytes, not 1"):
        engine.receive(server.sealing.seal(b"\1\1"))


# SASL: by Cyrus, and where that is missing by scramp.


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


# VeNCrypt without TLS, and before it.


def test_vencrypt_plain() -> None:
    engine = start(19)
    engine.receive(b"\0\2")
    assert engine.data_to_send() == b"\0\2"
    engine.receive(b"\0\1" + long(256))
    user, password = USER.encode(), PASSWORD.encode()
    sent = long(256) + long(len(user)) + long(len(password)) + user + password
    assert engine.data_to_send() == sent
    finish(engine)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\0\1", r"version 0\.1 of VeNCrypt"),
        (b"\0\2\1", "refuses version 0.2"),
        (b"\0\2\0\0", "none at all"),
        (b"\0\2\0\1" + long(265), r"Ident \(265\)"),
        (b"\0\2\0\1" + long(257) + b"\0", "cannot do what it offers"),
        (b"\0\2\0\1" + long(257) + b"\1RFB 003.008\n" + bytes(64), "TLS with the VNC server fails"),
        (b"\0\2\0\1" + long(262) + b"\1" + bytes(64), "TLS with the VNC server fails"),
    ],
)
def test_vencrypt_that_is_broken(data: bytes, match: str) -> None:
    with pytest.raises(VmconnectError, match=match):
        start(19).receive(data)


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


# Which login is made.

REMOTE, ALONE = Policy(), Policy(private=True)
CHOICES = [
    # No password at hand: what asks for none; encrypted first, but not where nobody listens.
    (REMOTE, None, None, (1, 2, 19), 19),
    (ALONE, None, None, (1, 2, 19), 1),
    (REMOTE, None, None, (1, 2), 1),
    # A password at hand is used, for what takes no user unless there is one.
    (REMOTE, None, PASSWORD, (1, 2, 30), 2),
    (REMOTE, USER, PASSWORD, (1, 2, 30), 30),
    (ALONE, None, PASSWORD, (1, 2, 19), 2),
    (ALONE, USER, PASSWORD, (1, 2, 19), 19),
    # The safest of what asks the same.
    (REMOTE, None, PASSWORD, (2, 16, 18, 19), 19),
    (REMOTE, None, PASSWORD, (5, 6, 129, 130), 129),
    (ALONE, None, PASSWORD, (5, 6, 129, 130), 130),
    (REMOTE, USER, PASSWORD, (30, 113), 30),
    (Policy(verified=True), None, None, (1, 2, 6, 18), 6),
]


@pytest.mark.parametrize(("policy", "user", "password", "offered", "chosen"), CHOICES)
def test_choice(
    policy: Policy,
    user: str | None,
    password: str | None,
    offered: tuple[int, ...],
    chosen: int,
) -> None:
    engine = Engine(Credentials(password, user), policy=policy)
    engine.receive(VERSION + bytes((len(offered), *offered)))
    assert engine.data_to_send()[-1 if chosen != 2 else 12] == chosen


def test_a_server_that_has_proved_itself_must_do_so_again() -> None:
    with pytest.raises(TrustError, match="do not prove who it is: TLS, VncAuth, None"):
        Engine(policy=Policy(verified=True)).receive(VERSION + b"\3\1\2\x12")


def test_every_login_has_a_name() -> None:
    for login in LOGINS:
        assert login_name(login.number) == f"{login.name} ({login.number})"


# Anything.


@given(st.sampled_from([login.number for login in LOGINS]), st.binary(max_size=300), st.integers(1))
def test_any_bytes(number: int, data: bytes, step: int) -> None:
    """Whatever comes is understood, waited for, or refused by an error of ours."""
    engine = start(number, policy=Policy(private=True, check_key=lambda _key: None))
    try:
        for at in range(0, len(data), step):
            engine.receive(data[at : at + step])
            engine.data_to_send()
    except VmconnectError:
        assert engine.state is State.CLOSED
    else:
        assert engine.state is not State.CLOSED
