"""The command channel into one guest."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vmconnect.channel import Channel, ChannelState
from vmconnect.deadline import Deadline
from vmconnect.direct.authentication import AttemptsExhaustedError
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.files import GuestFiles
from vmconnect.direct.login import Login
from vmconnect.direct.pump import Sink, drain, end_input, feed
from vmconnect.direct.result import Result
from vmconnect.direct.ssh import HostKeyCheck, SshConnection
from vmconnect.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    GuestError,
    VmconnectError,
)
from vmconnect.secret import Secret
from vmconnect.streams import Stream

if TYPE_CHECKING:  # What is needed for copies alone.
    from vmconnect.direct.copy import Place, PortOpener

__all__ = ["Guest", "Opener"]

Opener = Callable[[Deadline], Stream]

# What `run` keeps in memory unless a sink takes the output.
OUTPUT_LIMIT_BYTES = 256 << 20

_FEED_BYTES = 1 << 18
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4)


class Guest(GuestFiles, Channel):
    """Commands and files in one guest, over SSH on whatever stream ``opener`` dials.

    Made by `Guest.open`. Calls may come from several threads: they run side by side on one
    connection. When the connection is lost the call that was under way fails, and the next one
    connects again.
    """

    def __init__(
        self,
        opener: Opener,
        machine: str,
        login: Login,
        check_host_key: HostKeyCheck,
        known_key_kinds: Sequence[str] = (),
    ):
        super().__init__(machine)
        self.login = login
        self._opener = opener
        self._check_host_key = check_host_key
        self._known_key_kinds = known_key_kinds
        self._connecting = threading.Lock()
        self._connection: SshConnection | None = None
        self.dial_port: PortOpener | None = None
        """How a vsock port of the guest is dialled, where that can be: for what is copied."""

    @classmethod
    def open(
        cls,
        opener: Opener,
        machine: str,
        login: Login,
        check_host_key: HostKeyCheck,
        *,
        known_key_kinds: Sequence[str] = (),
        timeout: Deadline | float | None = 30.0,
        wait: bool = False,
    ) -> Guest:
        """Connect, check the host key and log in; ``wait`` retries while nobody answers yet.

        Raises ConnectError, DeadlineError, SshError, TrustError, AuthenticationError.
        """
        guest = cls(opener, machine, login, check_host_key, known_key_kinds)
        try:
            guest._connect(Deadline.of(timeout), wait=wait)
        except VmconnectError as error:
            guest._end(error)
            raise
        except BaseException:
            guest.close()
            raise
        return guest

    @property
    def method(self) -> str:
        """How we logged in, such as ``key /home/me/.ssh/id_ed25519``."""
        return self._connection.method if self._connection else ""

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

        Raises ConnectionLostError when the guest goes away meanwhile, DeadlineError after
        ``timeout`` (the command is then hung up on), GuestError for more output than is kept.
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
        connection = self._connect(deadline)
        channel = connection.open(shlex.join(argv), deadline.sooner(30.0), on_start)
        kept_out, kept_err = bytearray(), bytearray()
        try:
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
        except VmconnectError as error:
            raise error.with_machine(self.machine) from error.__cause__
        finally:
            channel.close()
        signal = connection.exit_signal(channel)
        if channel.exit_status < 0 and signal is None:
            raise self._no_status(connection)
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

    def _place(self, deadline: Deadline) -> Place:
        from vmconnect.direct.copy import Place

        return Place(self._connect(deadline), self.dial_port)

    def close(self) -> None:
        """End the channel and whatever runs over it."""
        self._end()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self, deadline: Deadline, *, wait: bool = False) -> SshConnection:
        """Return a connection that stands, making one if need be."""
        with self._connecting:
            connection = self._connection
            if connection is not None and not connection.alive:
                self._lose(connection, connection.lost("idle"))
                connection = None
            if connection is not None and self.state is ChannelState.READY:
                return connection
            if self.state is ChannelState.CLOSED:
                raise self.reason or ClosedError("the channel is closed", machine=self.machine)
            if self.state is ChannelState.LOST:
                self._enter(ChannelState.RECONNECTING)
            try:
                self._connection = self._dial(deadline.sooner(60.0), wait=wait)
            except VmconnectError as error:
                if self.state is ChannelState.RECONNECTING:
                    self._enter(ChannelState.LOST, error)
                raise error.with_machine(self.machine) from error.__cause__
            self._enter(ChannelState.READY)
            return self._connection

    def _dial(self, deadline: Deadline, *, wait: bool) -> SshConnection:
        attempt = 0
        login = self.login
        tried: tuple[str, ...] = ()
        while True:
            try:
                connection = SshConnection(
                    self._opener(deadline),
                    self.machine,
                    login,
                    self._check_host_key,
                    known_key_kinds=self._known_key_kinds,
                    tried=tried,
                    timeout=deadline,
                )
            except AttemptsExhaustedError as error:
                login, tried = error.rest, error.tried
            except (ConnectError, ConnectionLostError):
                pause = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                left = deadline.remaining()
                if not wait or (left is not None and left < pause):
                    raise
                attempt += 1
                time.sleep(pause)
            else:
                if isinstance(password := connection.login.password, Secret):
                    # Nobody is to be asked again for what has let us in.
                    self.login = replace(self.login, password=password)
                return connection

    def _lose(self, connection: SshConnection, reason: VmconnectError) -> None:
        connection.close()
        self._connection = None
        if self.state is ChannelState.READY:
            self._enter(ChannelState.LOST, reason)

    def _no_status(self, connection: SshConnection) -> VmconnectError:
        """Return why a command ended without telling how."""
        if connection.alive:
            return GuestError("the command ended without an exit status", machine=self.machine)
        lost = connection.lost("the command ran")
        self._lose(connection, lost)
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
