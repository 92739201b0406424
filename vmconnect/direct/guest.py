"""The command channel into one guest."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vmconnect.channel import Channel, ChannelState, Lost
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.direct.authentication import AttemptsExhaustedError
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.library import paramiko
from vmconnect.direct.login import Login, Memory
from vmconnect.direct.pump import Sink, drain, end_input, feed
from vmconnect.direct.result import Result
from vmconnect.direct.ssh import HostKeyCheck, SshConnection
from vmconnect.direct.transfer import download, upload
from vmconnect.errors import (
    AuthenticationError,
    CommandLostError,
    ConnectionLostError,
    GuestError,
    VmconnectError,
)
from vmconnect.progress import Progress, Silent
from vmconnect.retry import Heartbeat, Retry
from vmconnect.secret import Secret
from vmconnect.streams import Stream

__all__ = ["Guest", "Opener"]

Opener = Callable[[Deadline], Stream]
"""Finds the guest and dials it; asked for each connection anew."""

# What `run` keeps in memory unless a sink takes the output.
OUTPUT_LIMIT_BYTES = 256 << 20

_FEED_BYTES = 1 << 18
# How long a connection, and a command's start, are waited for if the caller has all the time.
_READY_SECONDS = 60.0
_START_SECONDS = 30.0
# How soon a lost connection is known to all.
_NOTICING_SECONDS = 1.0
_LOST_HINT = "did the guest power off or restart?"


class Guest(Channel):
    """Commands and files in one guest, over SSH on whatever stream ``opener`` dials.

    Made by `Guest.open`. Calls may come from several threads: they run side by side on one
    connection. When it is lost, the calls under way fail, and say what is known of them; nothing
    is run again by itself. With a `Retry` the channel comes back, and later calls wait for it.
    """

    kind = "guest"

    def __init__(
        self,
        opener: Opener,
        machine: str,
        login: Login | Callable[[], Login],
        check_host_key: HostKeyCheck,
        known_key_kinds: Sequence[str] = (),
        *,
        retry: Retry | None = None,
        heartbeat: Heartbeat | None = None,
        scope: CancelScope | None = None,
    ):
        super().__init__(machine, retry, scope)
        self.login = login if isinstance(login, Login) else Login()
        """Who we are there, and how we prove it."""
        self._find_login = login if callable(login) else lambda: login
        self._opener = opener
        self._memory = Memory()
        self._password: Secret | None = None
        self._check_host_key = check_host_key
        self._known_key_kinds = known_key_kinds
        self._heartbeat = heartbeat
        self._connection: SshConnection | None = None

    @classmethod
    def open(
        cls,
        opener: Opener,
        machine: str,
        login: Login | Callable[[], Login],
        check_host_key: HostKeyCheck,
        *,
        known_key_kinds: Sequence[str] = (),
        timeout: Deadline | float | None = 30.0,
        wait: bool = False,
        retry: Retry | None = None,
        heartbeat: Heartbeat | None = None,
        scope: CancelScope | None = None,
    ) -> Guest:
        """Connect, check the host key and log in; ``wait`` retries while nobody answers yet.

        ``login`` may be a way to find out who we are, asked for each connection. With ``retry``
        the channel comes back by itself, and what a person has answered is used again.
        ``heartbeat`` finds a guest out that is silent; ``scope`` ends the opening when it is
        cancelled.

        Raises ConnectError, DeadlineError, SshError, TrustError, AuthenticationError.
        """
        guest = cls(
            opener,
            machine,
            login,
            check_host_key,
            known_key_kinds,
            retry=retry,
            heartbeat=heartbeat,
            scope=scope,
        )
        guest._open(guest._scope.deadline(timeout), wait=wait)
        return guest

    @property
    def method(self) -> str:
        """How we logged in, such as ``key /home/me/.ssh/id_ed25519``."""
        connection = self._connection
        return connection.method if connection else ""

    @property
    def greeting(self) -> str:
        """What the guest's SSH server greeted with; empty while there is no connection."""
        return self._connection.greeting if self._connection else ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        on_start: Callable[[Callable[[], None]], object] | None = None,
    ) -> Result:
        """Run ``argv`` in the guest, each element one argument, and return what it gave.

        ``stdin`` is sent as it is and then ended; None is an empty input. ``stdout`` and
        ``stderr`` take bytes as they come; without them they are kept in the result, up to
        256 MiB. A command that is not found gives exit code 127, one that cannot be executed
        126, as the guest's shell says. ``on_start`` is called just before the command is sent,
        with a function that hangs up on it, from any thread; `run` then raises a VmconnectError.
        What fails before has not reached the guest.

        While the channel is lost it waits, for as long as ``timeout`` allows, and a minute
        without one. Raises CommandLostError when the guest goes away meanwhile, DeadlineError
        after ``timeout`` (the command is then hung up on), GuestError for more output than is
        kept.
        """
        with self.operations.doing("run", argv=tuple(argv)) as operation:
            count = ByteCount(operation)
            result = self._run(
                argv,
                count.sending(stdin),
                count.receiving(stdout),
                count.receiving(stderr),
                timeout,
                on_start,
            )
            count.received(len(result.stdout) + len(result.stderr))
            operation.details |= {"exit_code": result.exit_code, "signal": result.signal}
            return result

    def _run(  # noqa: PLR0917 (those of `run`)
        self,
        argv: Sequence[str],
        stdin: bytes | Iterable[bytes] | None,
        stdout: Sink | None,
        stderr: Sink | None,
        timeout: Deadline | float | None,
        on_start: Callable[[Callable[[], None]], object] | None,
    ) -> Result:
        deadline = Deadline.of(timeout)
        started = time.perf_counter()
        connection, channel = self._channel(deadline)
        kept_out, kept_err = bytearray(), bytearray()
        # It stays there if the connection ends under it: then `_drop` tells of it.
        connection.under_way[channel] = shlex.join(argv)
        try:
            try:
                until = deadline.sooner(_START_SECONDS)
                connection.execute(channel, shlex.join(argv), until, on_start)
            except ConnectionLostError as error:
                raise self._lost(argv, error, started=False) from error.__cause__
            if stdin is None:
                end_input(channel)
            else:
                feed(channel, _chunks(stdin) if isinstance(stdin, bytes) else stdin)
            drain(
                channel,
                stdout or self._keeper(kept_out),
                stderr or self._keeper(kept_err),
                deadline,
            )
            channel.status_event.wait(deadline.remaining())
            deadline.check("waiting for the command")
            signal = connection.exit_signal(channel)
            if channel.exit_status < 0 and signal is None:
                raise self._no_status(argv, connection)
        except CommandLostError:
            raise
        except VmconnectError as error:
            del connection.under_way[channel]
            raise error.with_machine(self.machine) from error.__cause__
        except BaseException:
            del connection.under_way[channel]
            raise
        finally:
            channel.close()
        del connection.under_way[channel]
        return Result(
            argv=tuple(argv),
            exit_code=None if signal else channel.exit_status,
            signal=signal,
            stdout=bytes(kept_out),
            stderr=bytes(kept_err),
            seconds=time.perf_counter() - started,
        )

    def prepare(self) -> None:
        """Have the next command start a little sooner, if that can be; for who will want one."""
        connection = self._connection
        if connection is not None:
            connection.prepare()

    def put(
        self,
        local: Path | str,
        remote: str,
        *,
        progress: Progress | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> int:
        """Copy a file into the guest and return its size in bytes; ``timeout`` is to connect.

        It gets its name only when it is whole. Raises ResourceError for the local file,
        GuestError for the remote one, ConnectionLostError.
        """
        with self.operations.doing("put", local=str(local), remote=remote) as operation:
            connection = self._ready(Deadline.of(timeout))
            operation.sent = upload(connection.sftp, local, remote, progress or Silent())
            return operation.sent

    def get(
        self,
        remote: str,
        local: Path | str,
        *,
        progress: Progress | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> int:
        """Copy a file out of the guest and return its size in bytes; else as `put`."""
        with self.operations.doing("get", local=str(local), remote=remote) as operation:
            connection = self._ready(Deadline.of(timeout))
            operation.received = download(connection.sftp, remote, local, progress or Silent())
            return operation.received

    def _connect(self, deadline: Deadline) -> None:
        stream = self._opener(deadline)
        try:
            login = self._find_login()
        except BaseException:
            stream.close()
            raise
        self.login = login = replace(
            login, ask=self._memory.of(login.ask), password=self._password or login.password
        )
        tried: tuple[str, ...] = ()
        while True:
            try:
                connection = SshConnection(
                    stream,
                    self.machine,
                    login,
                    self._check_host_key,
                    known_key_kinds=self._known_key_kinds,
                    tried=tried,
                    timeout=deadline.sooner(_READY_SECONDS),
                )
            except AttemptsExhaustedError as error:
                login, tried = error.rest, error.tried
                stream = self._opener(deadline)
            except AuthenticationError:
                self._memory.forget()
                raise
            else:
                if isinstance(password := connection.login.password, Secret):
                    # Nobody is to be asked again for what has let us in.
                    self._password = password
                self._connection = connection
                return

    def _serve(self) -> VmconnectError:
        connection = self._connection
        if connection is None:
            return self._ended()
        return connection.wait_end(self._heartbeat)

    def _drop(self) -> Lost:
        connection, self._connection = self._connection, None
        if connection is None:
            return Lost()
        connection.close()
        return Lost(uncertain=tuple(connection.under_way.values()))

    def _hang_up(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.close()

    def _ready(self, deadline: Deadline) -> SshConnection:
        """Return a connection that stands, as far as is known, waiting for it if need be."""
        deadline = deadline.sooner(_READY_SECONDS)
        while True:
            self.wait_ready(deadline)
            connection = self._connection
            if connection is not None and connection.alive:
                return connection
            # It has ended just now.
            self._await_loss(deadline)

    def _channel(self, deadline: Deadline) -> tuple[SshConnection, paramiko.Channel]:
        """Return a connection with a channel on which nothing runs yet."""
        while True:
            connection = self._ready(deadline)
            try:
                return connection, connection.open(deadline.sooner(_START_SECONDS))
            except ConnectionLostError:
                # Nothing was run, so nothing is run twice.
                connection.close()
                self._await_loss(deadline)

    def _await_loss(self, deadline: Deadline) -> None:
        """Wait until it is known to all that the connection has ended."""
        self._states.wait_for(lambda state: state is not ChannelState.READY, deadline)
        deadline.check("waiting for the guest")

    def _no_status(self, argv: Sequence[str], connection: SshConnection) -> VmconnectError:
        """Return why a command ended without telling how."""
        if connection.alive:
            return GuestError("the command ended without an exit status", machine=self.machine)
        return self._lost(argv, connection.lost("the command ran"), started=True)

    def _lost(
        self, argv: Sequence[str], error: ConnectionLostError, *, started: bool
    ) -> VmconnectError:
        """Return what is known of a command under which the connection has ended."""
        if threading.current_thread() is not self._thread:
            # Whoever hears of it looks at the state next, or waits for it to be READY again.
            self._states.wait_for(
                lambda state: state is not ChannelState.READY, Deadline(_NOTICING_SECONDS)
            )
        if not self.alive and self.reason is None:
            return self._ended()
        known = "it had started; how it ended is not known" if started else "it may have started"
        lost = CommandLostError(
            f"{error.message}: {known}",
            argv=argv,
            started=started,
            machine=self.machine,
            hint=_LOST_HINT,
        )
        lost.__cause__ = error.__cause__
        return lost

    def _keeper(self, kept: bytearray) -> Sink:
        def keep(data: bytes) -> None:
            if len(kept) + len(data) > OUTPUT_LIMIT_BYTES:
                raise GuestError(
                    f"the command wrote more than {OUTPUT_LIMIT_BYTES >> 20} MiB",
                    machine=self.machine,
                    hint="take the output with a sink",
                )
            kept.extend(data)

        return keep


def _chunks(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), _FEED_BYTES):
        yield bytes(view[start : start + _FEED_BYTES])
