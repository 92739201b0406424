"""paramiko's transport, with the channels that forwarding takes.

TCP: RFC 4254, section 7. UNIX sockets: OpenSSH's PROTOCOL, section 2.4. paramiko has the first, a
thread for each wait, and of the second nothing. Here nothing waits: what comes is told to whoever
asked, in the transport's own thread, which must not wait for leave to send in its turn: between
keys, only it could end that wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from vmconnect.direct.library import paramiko
from vmconnect.errors import VmconnectError

__all__ = ["SENDING_FAILED", "ForwardingTransport", "GarbageError", "Offer", "Packet", "Peer"]

WINDOW_BYTES = 2 << 20
"""How much the guest may send on one channel that has not been passed on yet."""
PACKET_BYTES = 1 << 15
PROHIBITED, CONNECT_FAILED, SHORTAGE = 1, 2, 4
"""Reasons why a channel is refused (RFC 4254, section 5.1)."""

_TEXT_CHARACTERS = 256
_MOST_LEFT = 4096
_OFFERS = {"forwarded-tcpip", "forwarded-streamlocal@openssh.com"}
_common = cast("Any", paramiko.common)

Answer = Callable[[paramiko.Message | None], object]
"""Takes what a global request was answered with; None if it was refused, or lost."""
Field = str | int
SENDING_FAILED = (paramiko.SSHException, EOFError, OSError, VmconnectError)
"""What sending over an SSH connection raises when that has ended."""


class GarbageError(paramiko.SSHException):
    """The far end sent what cannot be read; the cause is what reading it raised."""


class Peer(Protocol):
    """A channel as the transport knows it; called in the transport's thread."""

    number: int
    """Ours for it, given by the transport."""

    def refused(self, reason: int, text: str) -> None:
        """Take the guest's refusal of the channel."""

    def _set_remote_channel(self, number: int, window: int, packet: int) -> None: ...

    def _feed(self, message: paramiko.Message) -> None: ...

    def _feed_extended(self, message: paramiko.Message) -> None: ...

    def _window_adjust(self, message: paramiko.Message) -> None: ...

    def _handle_eof(self, message: paramiko.Message) -> None: ...

    def _handle_close(self, message: paramiko.Message) -> None: ...

    def _handle_request(self, message: paramiko.Message) -> None: ...

    def _request_success(self, message: paramiko.Message) -> None: ...

    def _request_failed(self, message: paramiko.Message) -> None: ...

    def _unlink(self) -> None: ...


class Packet(bytes):
    """A message that is whole already."""

    __slots__ = ()

    def asbytes(self) -> bytes:
        """Return it, as paramiko asks its own messages to."""
        return self


class Offer:
    """A channel that the guest wants to open, for a connection that it has taken."""

    def __init__(
        self, transport: ForwardingTransport, theirs: int, window: int, packet: int, where: Field
    ):
        self.where = where
        """The port, or the path, that was connected to in the guest."""
        self.transport = transport
        self._theirs, self._window, self._packet = theirs, window, packet

    def accept(self, peer: Peer) -> None:
        """Open it."""
        number = self.transport.enter(peer)
        peer._set_remote_channel(self._theirs, self._window, self._packet)
        message = paramiko.Message()
        message.add_byte(_common.cMSG_CHANNEL_OPEN_SUCCESS)
        for each in (self._theirs, number, WINDOW_BYTES, PACKET_BYTES):
            message.add_int(each)
        self.transport.send(message)

    def refuse(self, reason: int) -> None:
        """Do not open it; not in the transport's thread."""
        self.transport.send(self._refusal(reason))

    def refuse_now(self, reason: int) -> None:
        """Do not open it; in the transport's thread.

        A guest that offers and does not read our refusals waits there, and offers no more.
        """
        self.transport.send_now(self._refusal(reason))

    def _refusal(self, reason: int) -> paramiko.Message:
        message = paramiko.Message()
        message.add_byte(_common.cMSG_CHANNEL_OPEN_FAILURE)
        message.add_int(self._theirs)
        message.add_int(reason)
        message.add_string("")
        message.add_string("en")
        return message


class ForwardingTransport(paramiko.Transport):
    """A transport on which channels are forwarded, both ways."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.takers: dict[Field, tuple[Callable[[Offer], object], Callable[[], object]]] = {}
        """Who takes the channels that the guest opens, by the port or path in the guest.

        The second is called at the end of the connection.
        """
        # Global requests are answered in their order, whoever has asked (RFC 4254, section 4).
        self._asked: deque[Answer | None] = deque()
        self._asking = threading.Lock()
        # paramiko's own map lets go of channels that nobody else holds.
        self._peers: dict[int, Peer] = {}
        # What still comes on one that is not known at all would end the connection.
        self._left: deque[int] = deque()
        self._mixed = cast("Any", self)

    def send(self, message: paramiko.Message | Packet) -> None:
        """Send a message, once the stream takes it; not in the transport's thread."""
        self._mixed._send_user_message(message)

    def send_now(self, message: paramiko.Message | Packet) -> None:
        """Send a message in the transport's thread, where it cannot be waited, as paramiko does."""
        self._send_message(message)

    def enter(self, peer: Peer) -> int:
        """Give a channel a number; it is known by it until `leave`."""
        mixed = self._mixed
        with mixed.lock:
            number: int = mixed._next_channel()
            mixed._channels.put(number, peer)
            mixed.channels_seen[number] = True
            self._peers[number] = peer
            peer.number = number
        return number

    def leave(self, number: int) -> None:
        """Forget a channel on which nothing more comes, or nothing that counts."""
        mixed = self._mixed
        with mixed.lock:
            mixed._channels.delete(number)
            self._peers.pop(number, None)
            self._left.append(number)
            if len(self._left) > _MOST_LEFT:
                mixed.channels_seen.pop(self._left.popleft(), None)

    def open_forward(self, peer: Peer, kind: str, *fields: Field) -> None:
        """Ask the guest to open a channel; its answer is the peer's."""
        number = self.enter(peer)
        message = paramiko.Message()
        message.add_byte(_common.cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        for each in (number, WINDOW_BYTES, PACKET_BYTES):
            message.add_int(each)
        _add(message, fields)
        self.send(message)

    def request_global(
        self, kind: str, *fields: Field, answer: Answer, at_once: bool = False
    ) -> None:
        """Make a global request; ``answer`` is called when it is answered, or never will be.

        ``at_once`` is for the transport's thread, as `send_now` is.
        """
        message = paramiko.Message()
        message.add_byte(_common.cMSG_GLOBAL_REQUEST)
        message.add_string(kind)
        message.add_boolean(True)
        _add(message, fields)
        message.answer = answer  # type: ignore[attr-defined]
        (self.send_now if at_once else self.send)(message)
        if not self.is_active():
            answer(None)

    def run(self) -> None:
        """Serve the connection until its end, and then tell all who wait for something."""
        super().run()
        asked, self._asked = self._asked, deque()
        for answer in asked:
            if answer is not None:
                answer(None)
        for peer in tuple(self._peers.values()):
            peer._unlink()
        self._peers.clear()
        for _taker, lost in tuple(self.takers.values()):
            lost()
        self.takers.clear()

    def get_exception(self) -> Exception | None:
        """Return what ended the connection, or refused what was asked, once; None if nothing did.

        What paramiko's thread stumbled over, as it read what the far end sent, is a GarbageError:
        whoever waits raises what is returned here.
        """
        error = super().get_exception()
        if error is None or isinstance(error, SENDING_FAILED):
            return error
        garbage = GarbageError("the SSH server sent what cannot be read")
        garbage.__cause__ = error
        return garbage

    def _send_message(self, data: Any) -> None:
        if isinstance(data, Packet) or data.packet.getbuffer()[:1] != _common.cMSG_GLOBAL_REQUEST:
            self._packetizer_send(data)
            return
        with self._asking:
            if _wants_answer(data):
                self._asked.append(getattr(data, "answer", None))
            self._packetizer_send(data)

    def _packetizer_send(self, data: Any) -> None:
        super()._send_message(data)  # type: ignore[misc]

    def _parse_request_success(self, message: paramiko.Message) -> None:
        if answer := self._next_answer():
            answer(message)
        else:
            super()._parse_request_success(message)  # type: ignore[misc]

    def _parse_request_failure(self, message: paramiko.Message) -> None:
        if answer := self._next_answer():
            answer(None)
        else:
            super()._parse_request_failure(message)  # type: ignore[misc]

    def _next_answer(self) -> Answer | None:
        return self._asked.popleft() if self._asked else None

    def _parse_channel_open_failure(self, message: paramiko.Message) -> None:
        start = message.packet.tell()
        number = message.get_int()
        peer = self._peers.get(number)
        if peer is None:
            message.packet.seek(start)
            super()._parse_channel_open_failure(message)  # type: ignore[misc]
            return
        reason = message.get_int()
        text = message.get_binary()[:_TEXT_CHARACTERS].decode(errors="replace")
        self.leave(number)
        peer.refused(reason, text)

    def _parse_channel_open(self, message: paramiko.Message) -> None:
        start = message.packet.tell()
        kind = message.get_text()
        if kind not in _OFFERS:
            message.packet.seek(start)
            super()._parse_channel_open(message)  # type: ignore[misc]
            return
        theirs, window, packet = message.get_int(), message.get_int(), message.get_int()
        where: Field = message.get_binary().decode("utf-8", "surrogateescape")
        if kind == "forwarded-tcpip":
            where = message.get_int()
        offer = Offer(self, theirs, window, packet, where)
        taker = self.takers.get(where)
        if taker is None:
            offer.refuse_now(PROHIBITED)
        else:
            taker[0](offer)

    # paramiko's table has its own channel's functions; a peer has its own.
    _channel_handler_table = {  # noqa: RUF012 (paramiko's own name and form)
        _common.MSG_CHANNEL_SUCCESS: lambda channel, message: channel._request_success(message),
        _common.MSG_CHANNEL_FAILURE: lambda channel, message: channel._request_failed(message),
        _common.MSG_CHANNEL_DATA: lambda channel, message: channel._feed(message),
        _common.MSG_CHANNEL_EXTENDED_DATA: lambda channel, message: channel._feed_extended(message),
        _common.MSG_CHANNEL_WINDOW_ADJUST: lambda channel, message: channel._window_adjust(message),
        _common.MSG_CHANNEL_REQUEST: lambda channel, message: channel._handle_request(message),
        _common.MSG_CHANNEL_EOF: lambda channel, message: channel._handle_eof(message),
        _common.MSG_CHANNEL_CLOSE: lambda channel, message: channel._handle_close(message),
    }


def _add(message: paramiko.Message, fields: tuple[Field, ...]) -> None:
    for field in fields:
        if isinstance(field, int):
            message.add_int(field)
        else:
            message.add_string(field.encode("utf-8", "surrogateescape"))


def _wants_answer(request: paramiko.Message) -> bool:
    read = paramiko.Message(request.asbytes()[1:])
    read.get_binary()
    return read.get_boolean()
