"""One SSH connection over one stream (RFC 4251-4254), by paramiko."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from vmconnect.deadline import Deadline
from vmconnect.direct.authentication import Authentication
from vmconnect.direct.channel_request import start_command
from vmconnect.direct.library import paramiko
from vmconnect.direct.login import Login
from vmconnect.direct.transport import ForwardingTransport
from vmconnect.direct.under_way import UnderWay
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    SshError,
    VmconnectError,
)
from vmconnect.retry import Heartbeat
from vmconnect.streams import Stream

if TYPE_CHECKING:
    from vmconnect.direct.terminal import Terminal

__all__ = ["HostKeyCheck", "SshConnection"]

# Called with the key's type and wire form; raises TrustError to refuse it.
HostKeyCheck = Callable[[str, bytes], None]

WINDOW_BYTES = 4 << 20
PACKET_BYTES = 1 << 15
SIGNAL_CHARACTERS = 32
_FRESH_SECONDS = 5.0
_REFUSALS = (paramiko.SSHException, EOFError, OSError)

# How paramiko says that the connection ended under what was asked of it.
_ENDED = ("ssh session not active", "unable to open channel", "negotiation failed", "no existing")
_NO_CHANNEL, _NO_ANSWER = "Unable to open channel.", "Timeout opening channel."

# What paramiko has to say is in the exceptions; its log would reach the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class _Socket:
    """A stream in the shape that paramiko expects of a socket, which includes ``_closed``."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._closed = False
        self.send = stream.send
        self.settimeout = stream.settimeout
        self.heard_at = time.monotonic()
        """When the far end last sent something."""

    def recv(self, size: int) -> bytes:
        try:
            data = self._stream.recv(size)
        except ConnectionLostError as error:
            # Of an OSError without a number paramiko's thread dies, and tells nobody of the end.
            raise EOFError from error
        self.heard_at = time.monotonic()
        return data

    def close(self) -> None:
        self._closed = True
        self._stream.close()


class _Transport(ForwardingTransport):
    """paramiko's transport, which also keeps the signals that ended commands.

    exit-signal (RFC 4254, section 6.10) is the one channel request that paramiko drops. And it
    says in the same words that a server has thrown us out and that it is gone: ``dismissed`` tells.
    """

    exit_signals: dict[int, str]
    _CLIENT_ID = "vmconnect"  # what we greet with
    dismissed = False

    def _parse_disconnect(self, _message: paramiko.Message) -> None:
        self.dismissed = True  # paramiko would log why, and fail where that is no text.

    def _channel_request(self: Any, message: paramiko.Message) -> None:
        # Called with the channel as ``self``, as paramiko's own handlers are.
        start = message.packet.tell()
        of_a_command = isinstance(self, paramiko.Channel)
        if message.get_binary() == b"exit-signal" and of_a_command:
            message.get_boolean()
            name = message.get_binary()[:SIGNAL_CHARACTERS].decode(errors="replace")
            self.transport.exit_signals[self.chanid] = name
            self.status_event.set()
            return
        message.packet.seek(start)
        self._handle_request(message)

    def ask(self) -> None:
        """Ask the server for an answer, be it that it knows no such request; do not wait for it.

        What OpenSSH asks with (ServerAliveInterval): a request that no server grants.
        """
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        with contextlib.suppress(*_REFUSALS):
            cast("Any", self)._send_user_message(message)

    _channel_handler_table = {  # noqa: RUF012 (paramiko's own name and form)
        **ForwardingTransport._channel_handler_table,
        paramiko.common.MSG_CHANNEL_REQUEST: _channel_request,
    }


class SshConnection:
    """An authenticated connection; commands and file transfers run side by side on it."""

    def __init__(
        self,
        stream: Stream,
        machine: str,
        login: Login,
        check_host_key: HostKeyCheck,
        *,
        known_key_kinds: Sequence[str] = (),
        tried: Sequence[str] = (),
        timeout: Deadline | float | None = 30.0,
    ):
        """Greet, check the host key, log in. The stream is ours from here, also on failure.

        ``known_key_kinds`` are the key types that are pinned already: they are asked for first,
        so that the server shows a key that we can compare. ``tried`` says which logins were
        refused on a connection before.

        Raises ConnectError when the far end hangs up instead of greeting, SshError when it does
        not speak SSH, what ``check_host_key`` raises, AuthenticationError (an
        AttemptsExhaustedError if the server takes no more on this connection), DeadlineError.
        """
        self.machine = machine
        self.login = login
        self.method = ""
        self.under_way = UnderWay(machine, self._has_ended)
        """The commands that run over it."""
        deadline = Deadline.of(timeout)
        self._socket = _Socket(stream)
        self._spare: paramiko.Channel | None = None
        self._spare_lock = threading.Lock()
        self._answered_at = 0.0
        try:
            with self._translated("logging in"), deadline.waking(self.close):
                self._transport = _Transport(
                    cast("Any", self._socket),
                    default_window_size=WINDOW_BYTES,
                    default_max_packet_size=PACKET_BYTES,
                )
                self._transport.exit_signals = {}
                self._greet(known_key_kinds, deadline)
                key = self._transport.get_remote_server_key()
                left = deadline.remaining()
                check_host_key(key.get_name(), key.asbytes())
                deadline = deadline.renewed(left)  # A person may have been asked.
                authentication = Authentication(self._transport, machine, login, deadline, tried)
                authentication.run()
                self.login, self.method = authentication.login, authentication.method
                # paramiko wakes ten times a second to see whether it is closed. Closing the stream
                # wakes it too, and a session costs no processor time while nothing happens.
                stream.settimeout(None)
        except BaseException:
            self.close()
            raise

    @property
    def greeting(self) -> str:
        """What the server greeted with, such as ``SSH-2.0-OpenSSH_9.2p1``: its word, unchecked."""
        return str(self._transport.remote_version)

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as this end knows."""
        return self._transport.is_active()

    @property
    def transport(self) -> ForwardingTransport:
        """What channels are forwarded over."""
        return self._transport

    def open(self, timeout: Deadline | float | None = 30.0) -> paramiko.Channel:
        """Return a channel on which a command can be run; nothing runs yet.

        Raises GuestError when the guest refuses, ConnectionLostError, DeadlineError.
        """
        with self._translated("opening a channel"):
            if (spare := self._take_spare()) is not None:
                return spare
            left = Deadline.of(timeout).remaining(at_most=3600)
            try:
                channel = self._transport.open_session(timeout=left)
            except paramiko.SSHException as error:
                # It keeps one reason for all: of several that are refused at once one is told it.
                if str(error) == _NO_CHANNEL and self._transport.is_active():
                    raise GuestError("refused while opening a channel") from error
                if str(error) == _NO_ANSWER:
                    raise TimeoutError from error
                raise
            self._answered_at = time.monotonic()
            return channel

    def execute(
        self,
        channel: paramiko.Channel,
        command: str,
        timeout: Deadline | float | None = 30.0,
        on_start: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """Start ``command`` in the user's shell; when this returns it runs.

        ``on_start`` is called just before it is sent, with the function that closes the channel.
        Raises as `open`; then it may run or not.
        """
        with self._translated("starting a command"):
            if on_start is not None:
                on_start(channel.close)
            start_command(channel, command, Deadline.of(timeout))
            self._answered_at = time.monotonic()

    def wait_end(self, heartbeat: Heartbeat | None = None) -> ConnectionLostError:
        """Return when the connection has ended, and how; it is closed then.

        With a ``heartbeat`` that has a patience it also is when the server is silent for too long.
        """
        if heartbeat is not None and heartbeat.patience_s is not None:
            silent = self._await_silence(heartbeat.interval_s, heartbeat.patience_s)
        else:
            self._transport.join()
            silent = 0.0
        self.close()
        if silent:
            return ConnectionLostError(
                f"the SSH server has not answered for {silent:.0f} seconds", machine=self.machine
            )
        return self.lost("nothing was asked of it")

    def _await_silence(self, interval_s: float, patience_s: float) -> float:
        """Return how many seconds the server has said nothing, once that is too long; 0 at its end.

        It is asked whether it is there while it says nothing.
        """
        transport = self._transport
        while transport.is_alive():
            asked = time.monotonic()
            transport.join(interval_s)
            # We may have been stopped ourselves, with the answer waiting to be read.
            late = time.monotonic() - asked > 3 * interval_s
            silent = time.monotonic() - self._socket.heard_at
            if silent >= interval_s + patience_s and not late:
                return silent
            if silent >= interval_s:
                # Aside: where nothing is read at the far end, asking waits as everything does.
                name = f"vmconnect guest {self.machine}: ask"
                threading.Thread(target=transport.ask, name=name, daemon=True).start()
        return 0.0

    def open_on_terminal(
        self,
        terminal: Terminal,
        environment: Mapping[str, str],
        command: str | None,
        timeout: Deadline | float | None = 30.0,
    ) -> paramiko.Channel:
        """Start ``command``, or the user's shell, on a terminal, and return its channel.

        Raises GuestError when the guest refuses, ConnectionLostError, DeadlineError.
        """
        from vmconnect.direct.terminal import start_on_terminal

        with self._translated("starting a shell"):
            return start_on_terminal(
                self._transport, terminal, environment, command, Deadline.of(timeout)
            )

    def prepare(self, timeout: float = 5.0) -> None:
        """Open the channel of the next command ahead, so that it starts a round trip sooner.

        There is no error: a server that lets us have no more channels has none to spare.
        """
        with contextlib.suppress(*_REFUSALS):
            if not self.alive:
                return
            before = self._swap_spare(None)
            if before is None or before.closed:
                before = self._transport.open_session(timeout=timeout)
                self._answered_at = time.monotonic()
            extra = self._swap_spare(before)
            if extra is not None:
                extra.close()

    def _take_spare(self) -> paramiko.Channel | None:
        # After a while it takes a round trip to know that the guest still knows us: a command that
        # was sent to one that does not may have run for all that we can tell.
        if time.monotonic() > self._answered_at + _FRESH_SECONDS:
            return None
        spare = self._swap_spare(None)
        return spare if spare is not None and not spare.closed else None

    def _swap_spare(self, channel: paramiko.Channel | None) -> paramiko.Channel | None:
        with self._spare_lock:
            before, self._spare = self._spare, channel
        return before

    def _has_ended(self, channel: paramiko.Channel) -> bool:
        return channel.exit_status >= 0 or channel.get_id() in self._transport.exit_signals

    def exit_signal(self, channel: paramiko.Channel) -> str | None:
        """Return the name of the signal that ended the channel's command, without ``SIG``."""
        return self._transport.exit_signals.pop(channel.get_id(), None)

    @contextmanager
    def sftp(self) -> Iterator[paramiko.SFTPClient]:
        """Open an SFTP session for the time of a ``with`` block."""
        with self._translated("copying"):
            try:
                client = paramiko.SFTPClient.from_transport(self._transport)
                if client is None:
                    raise GuestError("it offers no SFTP", machine=self.machine)
                try:
                    yield client
                finally:
                    client.close()
            except (UnicodeDecodeError, struct.error) as error:
                raise SshError("the SFTP server sent what cannot be read") from error

    def lost(self, doing: str) -> ConnectionLostError:
        """Return the error for a connection that broke in the midst of ``doing``."""
        cause = self._transport.get_exception()
        lost = ConnectionLostError(
            f"the connection broke while {doing}",
            machine=self.machine,
            hint="did the guest power off or restart?",
        )
        lost.__cause__ = cause
        return lost

    def close(self) -> None:
        """End the connection and all that runs on it."""
        transport = getattr(self, "_transport", None)
        if transport is not None:
            transport.close()
        self._socket.close()

    def _greet(self, known_key_kinds: Sequence[str], deadline: Deadline) -> None:
        options = self._transport.get_security_options()
        offered = [*options.key_types]
        options.key_types = sorted(offered, key=lambda kind: kind not in known_key_kinds)
        left = deadline.remaining(at_most=3600) or 0.001
        self._transport.banner_timeout = left
        self._transport.handshake_timeout = left
        self._transport.auth_timeout = left
        doing = "waiting for the SSH server's greeting"
        try:
            self._transport.start_client(timeout=left)
            if not self._transport.initial_kex_done:
                # It only returns, when its time is over.
                raise DeadlineError(f"timed out while {doing}", machine=self.machine)
        except (paramiko.SSHException, EOFError, ConnectionError) as error:
            deadline.check(doing)
            if isinstance(error.__cause__ or error.__context__, TimeoutError):
                raise DeadlineError(f"timed out while {doing}", machine=self.machine) from error
            # It may have gone before it read our greeting, or without one of its own.
            gone = not isinstance(error, paramiko.SSHException) or "banner" in str(error)
            if gone and not self._transport.remote_version:
                raise ConnectError(
                    "the SSH server hung up before it greeted",
                    machine=self.machine,
                    hint="is sshd installed in the guest, and is the guest still starting?",
                ) from error
            raise

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn what paramiko raises into our tree; the one place that does."""
        try:
            with _interrupts_first():
                yield
        except VmconnectError as error:
            raise error.with_machine(self.machine) from error.__cause__
        except TimeoutError as error:
            raise DeadlineError(f"timed out while {doing}", machine=self.machine) from error
        except (EOFError, ConnectionError) as error:
            raise self.lost(doing) from error
        except paramiko.ChannelException as error:
            raise GuestError(f"refused while {doing}: {error}", machine=self.machine) from error
        except (paramiko.SSHException, paramiko.SFTPError) as error:
            if not self._transport.is_active() and str(error).lower().startswith(_ENDED):
                raise self.lost(doing) from error
            raise SshError(f"{error} while {doing}", machine=self.machine) from error


@contextmanager
def _interrupts_first() -> Iterator[None]:
    """Let a Ctrl-C be one, though what tidied up after it failed in its turn."""
    try:
        yield
    except Exception as error:
        before = error.__context__
        while before is not None:
            if isinstance(before, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            before = before.__context__
        raise
