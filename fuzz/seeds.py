"""What the fuzzer begins with: what the tests' writer of valid rectangles makes."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.guest_seeds import GUEST_SEEDS
from fuzz.room import FORM_NAMES, HEIGHT, WIDTH
from fuzz.wrap import PSEUDO, QUICK
from tests.vnc.h264_writer import H264Writer, picture
from tests.vnc.wire import long, server_init, string, update
from tests.vnc.writer import FORMATS, Writer
from vmconnect.vnc.security import LOGINS

__all__ = ["seeds", "write_seeds"]

_HEADER = 12
# Where a rectangle's place and size are within 16 bits each: the low bytes are enough.
_LOW = 1, 3, 5, 7


def _head(form: int, rectangle: bytes, options: int) -> bytes:
    return bytes((form, *(rectangle[i] for i in _LOW), options))


class _Plain(Writer):
    """A writer whose zlib data are not compressed: the wraps will do that."""

    def deflate(self, number: int, data: bytes) -> bytes:
        return data


def _of_encoding(name: str, form: int, chance: random.Random) -> bytes:
    writer = _Plain(chance, FORMATS[FORM_NAMES[form]], WIDTH, HEIGHT)
    name = name.removesuffix("-large")
    method = {"tight-any": "tight", "jpeg": "tight_jpeg", "png": "tight_png"}.get(name, name)
    rectangle = b""
    while len(rectangle) <= _HEADER + 1:
        place = writer.place()
        # A picture has pixels.
        if all(place[2:]) or name not in {"jpeg", "png"}:
            rectangle = getattr(writer, method)(*place)
    body = rectangle[_HEADER:]
    options = chance.choice((0, 0, 4, 8, 16))
    if name in {"zlib", "zrle", "zywrle"}:
        body = body[4:]
    elif name == "tight":
        options |= 64
    elif name in {"jpeg", "png"}:
        # Control and a length of two bytes, or three.
        body = body[2:] if body[1] < 128 else body[3:] if body[2] < 128 else body[4:]
        options = 128
    return _head(form, rectangle, options) + body


def seeds(name: str, count: int = 60) -> list[bytes]:
    """Return what a target begins with."""
    chance = random.Random(name)
    if name in GUEST_SEEDS:
        return GUEST_SEEDS[name]
    if name == "handshake":
        return _handshakes()
    if name == "pseudo":
        return [
            bytes((0, index, 1, 1, 5, 5, length)) + chance.randbytes(length)
            for index in range(len(PSEUDO))
            for length in (0, 1, 4, 16, 30, 104)
        ]
    if name == "clipboard":
        bodies = [bytes((flag, option, 9)) + b"some text" for flag in (1, 2, 4, 8, 16)
                  for option in (0x10, 0x1B, 0x13)]  # fmt: skip
        return [*bodies, b"".join(bodies)]
    if name == "differential":
        return [
            bytes((index,)) + seed for index, other in enumerate(QUICK) for seed in seeds(other, 12)
        ]
    if name == "kernel":
        return [seed for _ in range(9) for seed in _kernels(chance)]
    if name == "stream":
        return _streams(chance, count)
    if name == "h264":
        return _h264()
    if name == "jpeg-21":
        writer = Writer(chance, FORMATS["ours"], WIDTH, HEIGHT)
        return [
            bytes((0, 0, 0, side, side, 0)) + writer.file(side, side, "JPEG", **options)
            for side in (1, 8, 17, 33)
            for options in ({"quality": 5}, {"progressive": True}, {"subsampling": 2})
        ]
    return [_of_encoding(name, i % len(FORM_NAMES), chance) for i in range(count)]


def _h264() -> list[bytes]:
    """Return streams of a few frames, of each kind, for rectangles of their size and smaller."""
    found: list[bytes] = []
    kinds: list[dict[str, str]] = [
        {"profile": "baseline"},
        {"profile": "main", "x264opts": "slices=3"},
        {"profile": "high", "x264opts": "8x8dct=1:cabac=1"},
        {"pixel_format": "yuv444p", "qp": "0"},
    ]
    for width, height in ((16, 16), (33, 17)):
        for kind in kinds:
            writer = H264Writer(-(-width // 2) * 2, -(-height // 2) * 2, **{"qp": "50", **kind})  # type: ignore[arg-type]
            frames = [_without_comments(writer.encode(picture(*writer.size, i))) for i in range(3)]
            place = bytes((len(found) % len(FORM_NAMES), 0, 0, width, height, 0))
            pieces = [len(frame).to_bytes(2, "big") + frame for frame in frames]
            found.append(place + b"\0" + b"\0".join(pieces))
            found.append(place + b"\0" + pieces[0] + b"\1" + pieces[1] + b"\2" + pieces[0])
    return found


def _without_comments(frame: bytes) -> bytes:
    """Leave out x264's account of its options (NAL units of kind 6), and the first start code."""
    start = b"\0\0\1"
    return start.join(unit for unit in frame.split(start)[1:] if unit[0] & 31 != 6)


def _kernels(chance: random.Random) -> list[bytes]:
    """Return a rectangle of each encoding, with what its stream holds before it."""
    found = []
    form = chance.randrange(len(FORM_NAMES))
    writer = _Plain(chance, FORMATS[FORM_NAMES[form]], WIDTH, HEIGHT)
    for write in (*writer.encodings, writer.zywrle):
        rectangle = write(*writer.place())
        held = b""
        if rectangle[11] in {6, 16, 17}:
            held = rectangle[16:]
            rectangle = rectangle[:12] + long(1) + b"x"
        head = bytes((form, 1, min(255, -(-len(held) // 4)), 7))
        found.append(head + held + bytes(-len(held) % 4) + rectangle)
    return found


def _streams(chance: random.Random, count: int) -> list[bytes]:
    found = []
    for i in range(count):
        form = i % len(FORM_NAMES)
        writer = Writer(chance, FORMATS[FORM_NAMES[form]], WIDTH, HEIGHT)
        found.append(bytes((form,)) + update(*(writer.rectangles(1) for _ in range(3))))
    others = [
        b"\2",
        b"\3\0\0\0" + string(b"text"),
        b"\1\0\0\0\0\1" + bytes(6),
        b"\xf8\0\0\0\x80\0\0\1\2ab",
        b"\x96",
        b"\xfa\0\1\1",
        b"\xff\1\0\2" + string(b"wave"),
    ]
    return found + [b"\0" + other for other in (*others, b"".join(others))]


def _handshakes() -> list[bytes]:
    init = long(0) + server_init(WIDTH, HEIGHT)
    refused = long(1) + string(b"no")
    found = [b"\3RFB 003.008\n\1\1" + init, b"\3HTTP/1.1 400", b"\3RFB 003.003\n" + long(0)]
    for index in range(len(LOGINS)):
        for version in range(3):
            option = bytes((index << 2 | version,))
            for before in (b"", bytes(16), bytes(64), bytes(range(256))):
                found += [option + before + init, option + before + refused]
            found.append(option + init[4:])
    return found


def write_seeds(name: str, directory: Path) -> None:
    """Put what a target begins with into a directory, a file each."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (directory / f"seed-{number:03}").write_bytes(seed)
