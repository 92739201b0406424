"""What the fuzzer begins with for what guests, hypervisors and clients say."""

from __future__ import annotations

import stat
import zlib

from vmconnect.broker.order import Order
from vmconnect.direct.copy.frames import COUNTS, HEADER, NUMBER, OFFSET, Entry, Kind, pack_entry

__all__ = ["GUEST_SEEDS"]

_FILE, _DIRECTORY, _LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def _frame(kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def _entry(mode: int, name: bytes, size: int = 0) -> bytes:
    return pack_entry(Entry(mode, 10**18, size, name, ((b"user.a", b"b"),)))


def _copies() -> list[bytes]:
    data = b"contents"
    crc = NUMBER.pack(zlib.crc32(data))
    whole = _frame(Kind.WHOLE, crc + _entry(_FILE, b"f", len(data)) + data)
    pieces = b"".join(
        (
            _frame(Kind.FILE, _entry(_FILE, b"f", len(data))),
            _frame(Kind.DATA, OFFSET.pack(0) + data),
            _frame(Kind.END, crc),
        )
    )
    link = _frame(Kind.LINK, _entry(_LINK, b"l") + b"../precious")
    tree = _frame(Kind.DIRECTORY, _entry(_DIRECTORY, b"d")) + whole + link + _frame(Kind.UP)
    tops = [_frame(Kind.TOP, NUMBER.pack(number)) for number in range(3)]
    done = _frame(Kind.DONE)
    asked = _frame(Kind.ASK, _entry(_FILE, b"f", 8) + _entry(_FILE, b"g", 9))
    return [
        _frame(Kind.TOTAL, COUNTS.pack(1, 8)) + tops[0] + whole + done,
        tops[1] + pieces + done,
        tops[2] + tree + done,
        tops[1] + asked + tree + _frame(Kind.ABANDON),
        tops[0] + _frame(Kind.FILE, _entry(_FILE, b"f", 1 << 30)) + _frame(Kind.BEGIN, bytes(8)),
    ]


GUEST_SEEDS: dict[str, list[bytes]] = {
    "agent": [
        b'\xff{"return": 1}\n{"return": {"pid": 2}}\n',
        b'{"error": {"class": "GenericError", "desc": "no"}}\n\xff{"return": 3}\n',
    ],
    "qmp": [
        b'{"QMP": {"version": {}, "capabilities": []}}\r\n{"return": {}, "id": 1}\r\n',
        b'{"event": "RESET", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}\n\n[]\n',
    ],
    "socks": [
        b"\4\1\0\x50\x7f\0\0\1user\0early",
        b"\4\1\0\x50\0\0\0\1\0name\0",
        b"\5\2\0\2\5\1\0\3\4name\0\x50early",
        b"\5\1\0\5\1\0\1\x7f\0\0\1\0\x50",
        b"\5\1\0\5\1\0\4" + bytes(15) + b"\1\0\x50",
    ],
    "vhost-user": [
        bytes((number, 0, 0, 0, 1 | flags, 0, 0, 0, size, 0, 0, 0)) + bytes(size)
        for number, flags, size in ((1, 0, 0), (2, 8, 8), (5, 0, 40), (24, 0, 12), (99, 0, 1))
    ],
    "texts": [
        Order(["exec", "web01", "true"], "/", {"HOME": "/root"}).to_bytes(),
        b"job 1 running 2 3 sleep\n",
        b"PRETTY_NAME=Debian\nMemTotal: 1 kB\n1: lo: <UP> inet 127.0.0.1/8\n",
    ],
    "copy": _copies(),
}
"""By the target's name (`fuzz.guests`)."""
