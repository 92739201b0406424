"""The vsock packet header (virtio 1.2, section 5.10.6): 44 bytes before every payload."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

__all__ = ["HEADER", "HEADER_BYTES", "HOST_CID", "STREAM", "Header", "Op", "Shutdown"]

HEADER: Final = struct.Struct("<QQIIIHHIII")
HEADER_BYTES: Final = HEADER.size

HOST_CID: Final = 2
STREAM: Final = 1  # VIRTIO_VSOCK_TYPE_STREAM; seqpacket (2) and datagrams are not offered.


class Op(enum.IntEnum):
    """What a packet does to its connection."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Shutdown:
    """The flags of a SHUTDOWN packet: what its sender will do no more.

    Plain numbers: `enum.IntFlag` computes in Python, and this is asked for every packet.
    """

    NONE: Final = 0
    RECEIVE: Final = 1
    SEND: Final = 2
    BOTH: Final = 3


class Header(NamedTuple):
    """A header's fields, in the order of the wire; a tuple, because each packet makes one.

    ``length`` is the payload's, in bytes. ``buf_alloc`` and ``fwd_cnt`` are the sender's receive
    window and how many bytes it has taken out of it, modulo 2**32.
    """

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        """Return the 44 bytes."""
        return HEADER.pack(*self)
