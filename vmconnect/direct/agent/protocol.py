"""The guest agent's protocol, sans-I/O (QEMU docs/interop/qemu-ga-ref).

A request is a line of JSON with ``execute`` and ``arguments``; so is its reply, with ``return`` or
``error``. Replies come in the order of the requests and bear no number, and the channel outlives
who uses it: what was asked by somebody who has gone is answered to the next. So one first asks for
``guest-sync-delimited`` with a number of one's own: its reply begins with the byte 0xFF, which is
in no JSON, and what came before is another's.

Agents of today give a request's ``id`` back with its reply, so that one which comes late, or twice,
is known for what it is; those of old refuse a request that has one, unread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vmconnect.errors import AgentError, UnsupportedError

__all__ = [
    "AgentParser",
    "Reply",
    "Synced",
    "decode_reply",
    "encode_mark",
    "encode_request",
    "encode_sync",
    "most_bytes",
]

_REPLY_BYTES = 1 << 20
# The longest that qemu-ga gives is a command's output: 16 MiB of each stream, in Base64.
_LONG_REPLY_BYTES = 64 << 20
_LONG = frozenset({"guest-exec-status", "guest-file-read"})

_SENTINEL = b"\xff"
_SHOWN_BYTES = 40
_UNEXPECTED_ID = "member 'id' is unexpected"


@dataclass(frozen=True, slots=True)
class Synced:
    """The reply to a ``guest-sync-delimited``, with the number that was in the request."""

    number: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Any other reply: a JSON object."""

    content: dict[str, Any]

    @property
    def number(self) -> Any:
        """The ``id`` of the request that it answers; None where the agent gives none back."""
        return self.content.get("id")

    @property
    def refuses_number(self) -> bool:
        """Whether it is an agent's of old, to whom a request must have no ``id``."""
        error = self.content.get("error")
        return isinstance(error, dict) and _UNEXPECTED_ID in str(error.get("desc"))


def encode_request(command: str, arguments: dict[str, Any], number: int | None = None) -> bytes:
    """Return a request as it is sent; ``number`` is its ``id``.

    Raises UnsupportedError for what is no Unicode, as a file's name may be: JSON has nothing else.
    """
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    if number is not None:
        request["id"] = number
    try:
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Its own words, and its object, would show what may be a secret.
        raise UnsupportedError("the guest agent takes no names that are not Unicode") from None


def most_bytes(command: str) -> int:
    """Return how long a reply to ``command`` may be: few bring more than facts."""
    return _LONG_REPLY_BYTES if command in _LONG else _REPLY_BYTES


def encode_sync(number: int) -> bytes:
    """Return the request that finds the beginning of our own replies.

    The 0xFF before it ends what somebody may have left half sent; the agent replies to that with
    an error, which is then among what came before.
    """
    return _SENTINEL + encode_mark(number)


def encode_mark(number: int) -> bytes:
    """Return the same request where nothing can have been left half sent."""
    return encode_request("guest-sync-delimited", {"id": number})


class AgentParser:
    """Replies out of bytes, each up to ``most_bytes``; until the first 0xFF it keeps nothing."""

    def __init__(self, most_bytes: int = _REPLY_BYTES) -> None:
        self.most_bytes = most_bytes
        self._partial = bytearray()
        self._discarding = True

    def resynchronise(self) -> None:
        """Drop what is there, and what comes until the next 0xFF."""
        self._partial.clear()
        self._discarding = True

    def receive(self, data: bytes) -> list[Synced | Reply]:
        """Return the replies that ``data`` completes.

        Raises AgentError for what is no reply, and for one that is longer than any; then it
        has to be synchronised anew.
        """
        if self._discarding:
            start = data.find(_SENTINEL)
            if start < 0:
                return []
            data, self._discarding = data[start:], False
        self._partial += data
        lines: list[bytearray] = []
        if b"\n" in data:
            *lines, self._partial = self._partial.split(b"\n")
        try:
            for each in (*lines, self._partial):
                _check_length(len(each), self.most_bytes)
            return [reply for line in lines if (reply := _reply(line)) is not None]
        except AgentError:
            self.resynchronise()
            raise


def decode_reply(text: str, most_bytes: int) -> dict[str, Any]:
    """Return a reply that came by itself, as a text; raises AgentError if it is none."""
    _check_length(len(text), most_bytes)
    content = _object(text.encode("utf-8", "replace"))
    if content is None:
        raise AgentError("an empty reply")
    return content


def _check_length(length: int, most_bytes: int) -> None:
    if length > most_bytes:
        raise AgentError(f"a reply longer than {most_bytes >> 20} MiB")


def _reply(line: bytearray) -> Synced | Reply | None:
    _, sentinel, after = line.rpartition(_SENTINEL)
    content = _object(after)
    if not sentinel:
        return None if content is None else Reply(content)
    # The reply to a synchronisation, ours or one that was given up.
    number = (content or {}).get("return")
    return Synced(number) if type(number) is int else None


def _object(line: bytes | bytearray) -> dict[str, Any] | None:
    """Return the object that a line is; None if it is blank."""
    if not line.strip():
        return None
    shown = f"{bytes(line[:_SHOWN_BYTES])!r}"
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AgentError(f"no reply: {shown}") from error
    if not isinstance(content, dict):
        raise AgentError(f"a reply that is no object: {shown}")
    return content
