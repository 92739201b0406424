"""RA2, against a server that the test plays: no server of Debian 12 has it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from vmconnect.errors import RfbError, TrustError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Connected
from vmconnect.vnc.policy import Policy, ServerKey
from vmconnect.vnc.states import State

from .login import PASSWORD, USER, finish, start
from .wire import long, server_init, words


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
