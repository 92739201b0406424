"""vhost-user messages: bytes to values and back, with no I/O.

The layout is QEMU's docs/interop/vhost-user.rst: a header of three 32-bit words (request, flags,
payload size), then the payload. Descriptors come beside the bytes, by SCM_RIGHTS.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from vmconnect.errors import VhostUserError

__all__ = [
    "HEADER_BYTES",
    "MAX_FDS",
    "MAX_PAYLOAD",
    "ConfigRange",
    "Message",
    "MessageParser",
    "Region",
    "Request",
    "RingAddress",
    "RingState",
    "encode_config",
    "encode_reply",
    "encode_ring_state",
    "encode_u64",
]

_HEADER: Final = struct.Struct("<III")
_U64: Final = struct.Struct("<Q")
_RING_STATE: Final = struct.Struct("<II")
_RING_ADDRESS: Final = struct.Struct("<IIQQQQ")
_REGION_COUNT: Final = struct.Struct("<II")
_REGION: Final = struct.Struct("<QQQQ")
_CONFIG: Final = struct.Struct("<III")

HEADER_BYTES: Final = _HEADER.size
# VHOST_MEMORY_BASELINE_NREGIONS: the most regions, and so the most descriptors, of one message.
MAX_FDS: Final = 8
# The largest payload that a front end may send us is a full memory table of 264 bytes; a
# configuration space of 256 bytes with its header is 268.
MAX_PAYLOAD: Final = 512

_VERSION: Final = 1
_VERSION_MASK: Final = 3
_REPLY: Final = 4
_NEED_REPLY: Final = 8
_RING_INDEX: Final = 0xFF
_NO_DESCRIPTOR: Final = 0x100


class Request(enum.IntEnum):
    """The front-end requests that this back end answers."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    GET_CONFIG = 24
    SET_CONFIG = 25


class RingState(NamedTuple):
    """A ring's index and one number about it."""

    ring: int
    number: int


class RingAddress(NamedTuple):
    """Where a ring's three parts are, in the front end's own addresses."""

    ring: int
    flags: int
    descriptors: int
    used: int
    available: int
    log: int


class Region(NamedTuple):
    """One stretch of guest memory: both its addresses, its bytes, its place in its file."""

    guest_address: int
    size: int
    user_address: int
    file_offset: int


class ConfigRange(NamedTuple):
    """A part of the configuration space."""

    offset: int
    size: int
    flags: int


class Message(NamedTuple):
    """One request; its accessors read the payload as what the request says it is.

    They raise VhostUserError for a payload of another size.
    """

    request: int
    flags: int
    payload: bytes

    @property
    def name(self) -> str:
        """The request's name, or its number."""
        try:
            return Request(self.request).name
        except ValueError:
            return f"request {self.request}"

    @property
    def needs_reply(self) -> bool:
        """Whether the front end asks to be told that the request was done (REPLY_ACK)."""
        return bool(self.flags & _NEED_REPLY)

    def u64(self) -> int:
        """Return the payload as one 64-bit number."""
        (value,) = self._unpack(_U64)
        return int(value)

    def ring_state(self) -> RingState:
        """Return the payload as a ring's index and number."""
        return RingState._make(self._unpack(_RING_STATE))

    def ring_address(self) -> RingAddress:
        """Return the payload as a ring's addresses."""
        return RingAddress._make(self._unpack(_RING_ADDRESS))

    def ring_descriptor(self) -> tuple[int, bool]:
        """Return the payload as a ring's index, and whether a descriptor comes with it."""
        value = self.u64()
        return value & _RING_INDEX, not value & _NO_DESCRIPTOR

    def regions(self) -> list[Region]:
        """Return the payload as a memory table."""
        if len(self.payload) < _REGION_COUNT.size:
            raise self._odd_size()
        count, _ = _REGION_COUNT.unpack_from(self.payload)
        if count > MAX_FDS:
            raise VhostUserError(f"{self.name} with {count} regions, at most {MAX_FDS} are allowed")
        if len(self.payload) != _REGION_COUNT.size + count * _REGION.size:
            raise self._odd_size()
        return [
            Region._make(fields)
            for fields in _REGION.iter_unpack(self.payload[_REGION_COUNT.size :])
        ]

    def config_range(self) -> ConfigRange:
        """Return the payload as a part of the configuration space, its content left aside."""
        if len(self.payload) < _CONFIG.size:
            raise self._odd_size()
        part = ConfigRange._make(_CONFIG.unpack_from(self.payload))
        if len(self.payload) != _CONFIG.size + part.size:
            raise self._odd_size()
        return part

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        if len(self.payload) != layout.size:
            raise self._odd_size()
        return layout.unpack(self.payload)

    def _odd_size(self) -> VhostUserError:
        return VhostUserError(f"{self.name} with a payload of {len(self.payload)} bytes")


class MessageParser:
    """Cuts a front end's bytes into messages.

    It says how many bytes it can take next (``wanted``), never more than the present message
    has, because descriptors belong to the message whose bytes they came with.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._total = HEADER_BYTES

    @property
    def wanted(self) -> int:
        """How many bytes are missing from the present header or message; at least one."""
        return self._total - len(self._bytes)

    @property
    def empty(self) -> bool:
        """Whether no message is half received."""
        return not self._bytes

    def feed(self, data: bytes) -> Message | None:
        """Take at most ``wanted`` bytes; return the message that they complete.

        Raises VhostUserError for another version, a reply, or a payload that is too long, before
        the payload is awaited.
        """
        if len(data) > self.wanted:
            raise VhostUserError(f"{len(data)} bytes where {self.wanted} are wanted")
        self._bytes += data
        if self.wanted:
            return None
        request, flags, size = _HEADER.unpack_from(self._bytes)
        if len(self._bytes) == HEADER_BYTES:
            if flags & _VERSION_MASK != _VERSION:
                raise VhostUserError(
                    f"a message of version {flags & _VERSION_MASK}",
                    hint="does the other end speak vhost-user?",
                )
            if flags & _REPLY:
                raise VhostUserError("a reply, where only requests may come")
            if size > MAX_PAYLOAD:
                raise VhostUserError(f"a payload of {size} bytes, at most {MAX_PAYLOAD} may come")
            self._total = HEADER_BYTES + size
            if size:
                return None
        message = Message(request, flags, bytes(self._bytes[HEADER_BYTES:]))
        self._bytes.clear()
        self._total = HEADER_BYTES
        return message


def encode_reply(request: int, payload: bytes) -> bytes:
    """Return the reply to ``request``."""
    return _HEADER.pack(request, _VERSION | _REPLY, len(payload)) + payload


def encode_u64(value: int) -> bytes:
    """Return a payload of one 64-bit number."""
    return _U64.pack(value)


def encode_ring_state(index: int, number: int) -> bytes:
    """Return a payload of a ring's index and number."""
    return _RING_STATE.pack(index, number)


def encode_config(part: ConfigRange, content: bytes) -> bytes:
    """Return a payload of a part of the configuration space with its content."""
    return _CONFIG.pack(*part) + content
