"""What real servers send and ask, as the tests show it; docs/rfb-support.md is made of it.

`ENCODINGS`
    every encoding of pixels by server: `test_server_encodings` offers it alone, with the bare Raw
    that no server may be refused, and looks at what comes
`LOGINS`
    every login by server: those of `test_server_*`, and `test_logins`, `test_ra2` and `test_sasl`
"""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.vnc.jobs import Kind

__all__ = ["ENCODINGS", "LOGINS", "LOSSLESS", "SERVERS", "Case", "document"]

LOSSLESS = 0.0
_QUALITY = -32
_JPEG, _LOSSY_WAVELETS = "Tight with JPEG", "ZYWRLE with losses"

SERVERS = {
    "xtigervnc": "Xtigervnc",
    "qemu": "QEMU",
    "x11vnc": "x11vnc",
    "wayvnc": "wayvnc",
    "tightvnc": "TightVNC",
}
"""By the names of their cases; their versions are those of Debian 12."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a server sends when it is offered some encodings, the first of them above all.

    ``kinds`` are drawn among others; none, if the server sends Raw instead. A colour may be off
    by ``tolerance`` of 255, and by a tenth of that on average.
    """

    offers: tuple[int, ...]
    kinds: frozenset[Kind] = frozenset()
    tolerance: float = LOSSLESS

    @property
    def cell(self) -> str:
        """What the document says of it."""
        if not self.kinds and self.offers[0] != 0:
            return "-"
        return "exact" if self.tolerance == LOSSLESS else "lossy"


# At what quality, 0 to 9, each sends JPEG: neatvnc knows none but 0 and 9.
_JPEG_QUALITY = {"xtigervnc": 8, "qemu": 4, "x11vnc": 9, "wayvnc": 9, "tightvnc": 8}
_WAVELET_QUALITY = 5

_ROWS: list[tuple[str, int]] = [
    ("Raw", 0),
    ("CopyRect", 1),
    ("RRE", 2),
    ("CoRRE", 4),
    ("Hextile", 5),
    ("Zlib", 6),
    ("Tight", 7),
    (_JPEG, 7),
    ("TRLE", 15),
    ("ZRLE", 16),
    ("ZYWRLE", 17),
    (_LOSSY_WAVELETS, 17),
    ("JPEG", 21),
    ("Open H.264", 50),
    ("TightPNG", -260),
]
_TIGHT = (Kind.FILL, Kind.TPIXELS)

_SENT: dict[str, dict[str, tuple[tuple[Kind, ...], float]]] = {
    "xtigervnc": {
        "CopyRect": ((Kind.COPY,), LOSSLESS),
        "RRE": ((Kind.RRE,), LOSSLESS),
        "Hextile": ((Kind.HEXTILE,), LOSSLESS),
        "Tight": ((*_TIGHT, Kind.INDICES), LOSSLESS),
        _JPEG: ((Kind.JPEG,), 60),
        "ZRLE": ((Kind.ZRLE,), LOSSLESS),
    },
    "qemu": {
        "Hextile": ((Kind.HEXTILE,), LOSSLESS),
        "Zlib": ((Kind.PIXELS,), LOSSLESS),
        "Tight": ((Kind.INDICES,), LOSSLESS),
        _JPEG: ((Kind.JPEG,), 170),
        "ZRLE": ((Kind.ZRLE,), LOSSLESS),
        "ZYWRLE": ((Kind.ZRLE,), LOSSLESS),
        _LOSSY_WAVELETS: ((Kind.ZYWRLE,), 60),
        "TightPNG": ((Kind.PNG,), LOSSLESS),
    },
    "x11vnc": {
        "CopyRect": ((Kind.COPY,), LOSSLESS),
        "RRE": ((Kind.RRE,), LOSSLESS),
        "CoRRE": ((Kind.CORRE,), LOSSLESS),
        "Hextile": ((Kind.HEXTILE,), LOSSLESS),
        "Zlib": ((Kind.PIXELS,), LOSSLESS),
        "Tight": (_TIGHT, LOSSLESS),
        _JPEG: ((Kind.JPEG,), 255),
        "ZRLE": ((Kind.ZRLE,), LOSSLESS),
        "ZYWRLE": ((Kind.ZYWRLE,), 255),
        _LOSSY_WAVELETS: ((Kind.ZYWRLE,), 255),
    },
    "wayvnc": {
        "Tight": ((Kind.TPIXELS,), LOSSLESS),
        _JPEG: ((Kind.JPEG,), 255),
        "ZRLE": ((Kind.ZRLE,), LOSSLESS),
    },
    "tightvnc": {
        "CopyRect": ((Kind.COPY,), LOSSLESS),
        "RRE": ((Kind.RRE,), LOSSLESS),
        "CoRRE": ((Kind.CORRE,), LOSSLESS),
        "Hextile": ((Kind.HEXTILE,), LOSSLESS),
        "Zlib": ((Kind.PIXELS,), LOSSLESS),
        "Tight": ((*_TIGHT, Kind.INDICES, Kind.GRADIENT), LOSSLESS),
        _JPEG: ((Kind.JPEG,), 60),
    },
}


def _offers(server: str, name: str, number: int) -> tuple[int, ...]:
    if name == _JPEG:
        return number, _QUALITY + _JPEG_QUALITY[server]
    return (number, _QUALITY + _WAVELET_QUALITY) if name == _LOSSY_WAVELETS else (number,)


ENCODINGS: dict[str, dict[str, Case]] = {
    server: {
        name: Case(_offers(server, name, number), frozenset(kinds), tolerance)
        for name, number in _ROWS
        for kinds, tolerance in [_SENT[server].get(name, ((), LOSSLESS))]
    }
    for server in SERVERS
}


PLAYED = {"TRLE": "exact", "JPEG": "lossy", "Open H.264": "lossy"}
"""Encodings that no server here sends: in `test_encodings`, `test_pictures` and `test_h264` the
tests are the server."""

LOGINS: dict[str, tuple[str, ...]] = {
    "xtigervnc": (
        *("None", "VncAuth", "Plain", "TLSNone", "TLSVnc", "TLSPlain"),
        *("X509None", "X509Vnc", "X509Plain"),
    ),
    "qemu": (
        *("None", "VncAuth", "TLSNone", "TLSVnc", "X509None", "X509Vnc"),
        *("SASL", "TLSSASL", "X509SASL"),
    ),
    "x11vnc": ("None", "VncAuth", "TLS", "TLSNone", "TLSVnc", "X509None", "X509Vnc"),
    "wayvnc": ("None", "X509Plain"),
    "tightvnc": ("None", "VncAuth", "Tight"),
    # No server here has them; the tests play one, by its published description.
    "played": (
        *("RA2", "RA2ne", "RA2-256", "RA2ne-256", "Tight", "SASL", "TLSSASL", "Apple DH"),
        *("MSLogonII", "Unix login", "Plain"),
    ),
}
"""What `vmconnect.vnc.Console.login` is then, or TLS for security type 18 around another."""

_COLUMNS = {**SERVERS, "played": "played"}

_HEAD = """\
# RFB: what is read, and what it was tried with

Written by the tests from what they show (`VMCONNECT_WRITE_DOCS=1 pytest
tests/vnc/test_support.py`). The servers are those of Debian 12: Xtigervnc 1.12, QEMU 7.2, x11vnc
0.9.16 (libvncserver 0.9.14), wayvnc 0.5 (neatvnc 0.5.4) on sway without a screen, TightVNC 1.3.10.

## Encodings

Each is offered alone, and the screen compared with the server's own pixel by pixel: *exact*, or
*lossy* within bounds. `-`: offered, and never sent: by its source that server cannot send it here.
*played*: no server here sends it, and the tests are the server (H.264 by x264). Everything is also
compared with a plain decoder (`tests/vnc/reference.py`) in {formats} pixel formats, compiled and
not, cut anywhere.

"""

_BETWEEN = """
What the servers have no code for: QEMU has none for RRE, CoRRE and TRLE, and sends CopyRect no more
since 2.9; TigerVNC has none for CoRRE, Zlib and TRLE; TightVNC none for TRLE and ZRLE; libvncserver
none for TRLE, and Debian's is built without TightPNG; neatvnc has Raw, Tight and ZRLE alone, and
H.264 on a GPU. CopyRect comes when something moves: the Xvncs copy what X11 copies, x11vnc a window
that scrolls after a key. Of Debian's other servers x0vncserver has TigerVNC's code, krfb and vino
libvncserver's or less; weston 10 has no VNC yet.

Pixel formats: Xtigervnc is asked for six (32 bits in three orders and both byte orders, 16 bits in
both, 8), QEMU for five (32, 16 in both byte orders, 8, colour map), TightVNC for seven (32 in both
byte orders and with ten bits a colour, 16 in both, 8, colour map), x11vnc for the ten bits a colour
of an X screen of depth 30. TigerVNC takes no more than eight, and QEMU loses what is above.

## Logins

Each ends with a picture and a key press, and is refused with a wrong password where there is one.
*played*: no server here has it, and the tests are the server, by its description. TLS is
security type 18 with VncAuth inside; those from Plain on are VeNCrypt's (19).

"""

_FOOT = """
RA2 in all four kinds was tried by hand with x0vncserver of TigerVNC 1.15 too. QEMU takes SASL only
on TCP, and without a certificate only mechanisms that encrypt by themselves: DIGEST-MD5 and
Kerberos (GSSAPI) are tried with SASL and TLSSASL, SCRAM-SHA-256 with X509SASL. The mechanisms are
Cyrus SASL's where it is installed (libsasl2, as for virt-viewer); without it there are SCRAM, PLAIN
and ANONYMOUS.
"""


def _table(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def document(logins: list[tuple[str, int]], formats: int) -> str:
    """Return docs/rfb-support.md; ``logins`` are all that there are, by name and number."""
    encodings = [
        [
            *(name, str(number), *(ENCODINGS[server][name].cell for server in SERVERS)),
            PLAYED.get(name, "-"),
        ]
        for name, number in _ROWS
    ]
    made = [
        [name, str(number), *("yes" if name in LOGINS[each] else "-" for each in _COLUMNS)]
        for name, number in logins
    ]
    return (
        _HEAD.format(formats=formats)
        + _table([["encoding", "number", *SERVERS.values(), "played"], *encodings])
        + _BETWEEN
        + _table([["login", "number", *_COLUMNS.values()], *made])
        + _FOOT
    )
