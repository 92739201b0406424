"""Logins against servers that the test plays: those that no server here has, and broken ones.

RA2 is in test_ra2.py, SASL in test_sasl.py.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import AuthenticationError, RfbError, TrustError, VmconnectError
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Connected
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.security import LOGINS, login_name
from vmconnect.vnc.security.vncauth import response
from vmconnect.vnc.states import State

from .login import PASSWORD, USER, VERSION, finish, start
from .wire import long, server_init, words

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
