"""Cyrus SASL, the system's library, for the mechanisms of security type SASL.

It is what gtk-vnc and QEMU use, so it speaks what they do: Kerberos (GSSAPI), which needs no
password, and DIGEST-MD5, both with a layer that encrypts all that follows. The packages on PyPI
that bind it are not kept (the newest is of 2021 and does not build with Python 3.11), so
`ctypes` calls it. What it wants to know it asks in turns, SASL_INTERACT, and not by calling back.

The library is not made for threads: one at a time is in it, but for Kerberos, which may wait for
its key server and does not share anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import re
import threading
import weakref
from collections.abc import Callable
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_uint, c_ulong, c_void_p
from typing import Any

from vmconnect.errors import AuthenticationError, RfbError
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.security.mechanisms import MechanismUnavailableError
from vmconnect.vnc.text import printable

__all__ = ["CyrusClient", "available"]

_LOG = logging.getLogger(__name__)

# Debian and those after it kept the number that the library had before.
_NAMES = ("libsasl2.so.2", "libsasl2.so.3")

_SERVICE = b"vnc"

# The most that one encrypted message of the server may hold, and that we put into one.
_MOST_BUFFER_BYTES = 64 * 1024

_OK, _CONTINUE, _INTERACT, _BADPROT = 0, 1, 2, -5
_SUCCESS_DATA = 0x0004
_NOPLAINTEXT = 0x0001
_ANY_STRENGTH = 1 << 16
_PROPERTY_STRENGTH, _PROPERTY_MOST_OUT, _PROPERTY_POLICY = 1, 2, 101
_END, _LOGGING, _USER, _AUTHNAME, _PASSWORD, _REALM = 0, 2, 0x4001, 0x4002, 0x4004, 0x4008
_MOST_ROUNDS_OF_QUESTIONS = 4
_LEVEL_NOTE = 4


class _Callback(ctypes.Structure):
    """``sasl_callback_t``."""

    _fields_ = (("id", c_ulong), ("function", c_void_p), ("context", c_void_p))


class _Question(ctypes.Structure):
    """``sasl_interact_t``."""

    _fields_ = (
        ("id", c_ulong),
        ("challenge", c_char_p),
        ("prompt", c_char_p),
        ("default", c_char_p),
        ("result", c_void_p),
        ("length", c_uint),
    )


class _Policy(ctypes.Structure):
    """``sasl_security_properties_t``."""

    _fields_ = (
        ("least_strength", c_uint),
        ("most_strength", c_uint),
        ("most_buffer", c_uint),
        ("flags", c_uint),
        ("names", c_void_p),
        ("values", c_void_p),
    )


_PREFIX = re.compile(r"^SASL\(-?\d+\): ")

_Bytes = POINTER(c_char)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "sasl_client_init": (c_void_p,),
    "sasl_client_new": (
        *(c_char_p, c_char_p, c_char_p, c_char_p, POINTER(_Callback), c_uint),
        POINTER(c_void_p),
    ),
    "sasl_client_start": (
        *(c_void_p, c_char_p, POINTER(POINTER(_Question)), POINTER(_Bytes), POINTER(c_uint)),
        POINTER(c_char_p),
    ),
    "sasl_client_step": (
        *(c_void_p, c_char_p, c_uint, POINTER(POINTER(_Question)), POINTER(_Bytes)),
        POINTER(c_uint),
    ),
    "sasl_encode": (c_void_p, c_char_p, c_uint, POINTER(_Bytes), POINTER(c_uint)),
    "sasl_decode": (c_void_p, c_char_p, c_uint, POINTER(_Bytes), POINTER(c_uint)),
    "sasl_getprop": (c_void_p, c_int, POINTER(c_void_p)),
    "sasl_setprop": (c_void_p, c_int, c_void_p),
    "sasl_dispose": (POINTER(c_void_p),),
    "sasl_errdetail": (c_void_p,),
}

# Whoever collects garbage may dispose of a connection while it is in the library.
_LOCK = threading.RLock()


def _note(_context: int | None, level: int, message: bytes | None) -> int:
    """Take what the library would tell the system's log; beyond notes it may tell secrets."""
    if level <= _LEVEL_NOTE:
        _LOG.debug("SASL: %s", printable(message or b""))
    return _OK


@functools.cache
def _callbacks() -> ctypes.Array[_Callback]:
    """Return what the library may call or ask, for all connections as long as there are any."""
    note = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, c_char_p)(_note)
    callbacks = (_Callback * 6)(
        _Callback(_LOGGING, ctypes.cast(note, c_void_p)),
        *(_Callback(asked) for asked in (_USER, _AUTHNAME, _PASSWORD, _REALM)),
        _Callback(_END),
    )
    # A cast alone does not keep the function.
    callbacks.keep = note  # type: ignore[attr-defined]
    return callbacks


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return the library, made ready; None where there is none."""
    with _LOCK:
        for name in _NAMES:
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(name)
                break
        else:
            return None
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = c_int
        library.sasl_dispose.restype = None
        library.sasl_errdetail.restype = c_char_p
        return library if library.sasl_client_init(None) == _OK else None


def available() -> bool:
    """Whether the library is installed."""
    return _library() is not None


def _host(name: str) -> bytes:
    try:
        return name.encode("idna")
    except UnicodeError as error:
        raise MechanismUnavailableError(f"no host can be called {name!r}") from error


def _dispose(library: ctypes.CDLL, connection: c_void_p) -> None:
    with _LOCK:
        library.sasl_dispose(byref(connection))


class CyrusClient:
    """Our half of a mechanism (see `vmconnect.vnc.security.mechanisms.Mechanism`).

    ``server_name`` is the host that Kerberos looks for. With ``hidden`` a mechanism that shows the
    password is not made. After the login, ``strength`` is that of the layer for what follows, in
    bits: 0 for none, 1 if it does not hide what it carries. With a layer, one thread may `encode`
    while another does `decode`.

    Raises MechanismUnavailableError where the library is not installed.
    """

    def __init__(self, mechanism: str, credentials: Credentials, server_name: str, *, hidden: bool):
        library = _library()
        if library is None:
            raise MechanismUnavailableError("Cyrus SASL is not installed")
        self.name = mechanism
        self.done = False
        self._library = library
        self._credentials = credentials
        self._connection = c_void_p()
        # The library reads the answers until the login is over.
        self._answers: list[ctypes.Array[c_char]] = []
        # The library lets nobody read while another writes.
        self._coding = threading.Lock()
        with _LOCK:
            result = library.sasl_client_new(
                *(_SERVICE, _host(server_name), None, None, _callbacks(), _SUCCESS_DATA),
                byref(self._connection),
            )
        if result != _OK:
            raise MechanismUnavailableError(f"Cyrus SASL fails with error {result}")
        weakref.finalize(self, _dispose, library, self._connection).atexit = False
        flags = _NOPLAINTEXT if hidden else 0
        policy = _Policy(0, _ANY_STRENGTH, _MOST_BUFFER_BYTES, flags)
        library.sasl_setprop(self._connection, _PROPERTY_POLICY, byref(policy))

    def start(self) -> bytes | None:
        """Return what the server is told first, if anything.

        Raises MechanismUnavailableError if the library lacks the mechanism, or it the means: a
        Kerberos ticket, say.
        """

        def start(*out: object) -> int:
            name = self.name.encode()
            return int(self._library.sasl_client_start(self._connection, name, *out, None))

        result, out = self._ask(start)
        if result not in {_OK, _CONTINUE}:
            raise MechanismUnavailableError(f"{self.name}: {self._detail(result)}")
        return out

    def step(self, data: bytes) -> bytes | None:
        """Return what to answer to what the server said, if anything.

        Raises AuthenticationError if the server refuses us or does not prove itself, RfbError for
        what the mechanism does not know.
        """

        def step(*out: object) -> int:
            length = len(data)
            return int(self._library.sasl_client_step(self._connection, data or None, length, *out))

        result, out = self._ask(step)
        if result == _BADPROT:
            raise RfbError(f"{self.name} fails: {self._detail(result)}")
        if result not in {_OK, _CONTINUE}:
            raise AuthenticationError(
                f"{self.name} fails: {self._detail(result)}",
                hint="are the user and the password right?",
            )
        return out

    @property
    def strength(self) -> int:
        """The layer's strength in bits."""
        return self._number(_PROPERTY_STRENGTH)

    def encode(self, data: bytes) -> bytes:
        """Return ``data`` as it goes to the server."""
        most = min(self._number(_PROPERTY_MOST_OUT), _MOST_BUFFER_BYTES) or 1
        pieces = (data[at : at + most] for at in range(0, len(data), most))
        return b"".join(self._code(self._library.sasl_encode, piece) for piece in pieces)

    def decode(self, data: bytes) -> bytes:
        """Return what the server said, as far as ``data`` completes it.

        Raises RfbError for what was changed on its way, or says to be longer than it may be.
        """
        return self._code(self._library.sasl_decode, data)

    def _ask(self, turn: Callable[..., int]) -> tuple[int, bytes | None]:
        """Let the library take its turn, and answer what it asks; return what it returns."""
        out, length = _Bytes(), c_uint()
        questions = POINTER(_Question)()
        # Kerberos may wait, and shares nothing.
        held = contextlib.nullcontext() if self.name.startswith("GSS") else _LOCK
        for _ in range(_MOST_ROUNDS_OF_QUESTIONS):
            with held:
                result = turn(byref(questions), byref(out), byref(length))
            if result != _INTERACT:
                break
            self._answer(questions)
        if result == _OK:
            self.done = True
            self._answers.clear()
        return result, ctypes.string_at(out, length.value) if out else None

    def _answer(self, questions: ctypes._Pointer[_Question]) -> None:
        """Answer the library's questions, which end with an empty one."""
        index = 0
        while (question := questions[index]).id != _END:
            answer = ctypes.create_string_buffer(self._said(question).encode())
            self._answers.append(answer)
            question.result = ctypes.addressof(answer)
            question.length = len(answer) - 1
            index += 1

    def _said(self, question: _Question) -> str:
        match question.id:
            case 0x4002:
                text = self._credentials.user()
            case 0x4004:
                text = self._credentials.password()
            case 0x4008:
                # The first of the realms; they come in braces, without another way to get them.
                realm = re.search(rb"\{(.*?)\}", question.challenge or b"")
                return realm[1].decode(errors="replace") if realm else ""
            case _:
                # To act for nobody else.
                return ""
        if "\0" in text:
            raise AuthenticationError("SASL takes no NUL in a name or a password")
        return text

    def _code(self, function: Any, data: bytes) -> bytes:
        out, length = _Bytes(), c_uint()
        with self._coding:
            result = function(self._connection, data, len(data), byref(out), byref(length))
            if result != _OK:
                raise RfbError(f"the layer of {self.name} fails: {self._detail(result)}")
            return ctypes.string_at(out, length.value) if out else b""

    def _number(self, which: int) -> int:
        value = c_void_p()
        result = self._library.sasl_getprop(self._connection, which, byref(value))
        if result != _OK or not value.value:
            return 0
        return c_uint.from_address(value.value).value

    def _detail(self, result: int) -> str:
        text = printable(self._library.sasl_errdetail(self._connection) or b"")
        return _PREFIX.sub("", text) or f"error {result}"
