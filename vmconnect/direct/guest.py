"""The command channel into one guest."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vmconnect.channel import Channel, ChannelState
from vmconnect.deadline import Deadline
from vmconnect.direct.authentication import AttemptsExhaustedError
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.command import Command, Words
from vmconnect.direct.control import Control, Reach
from vmconnect.direct.job import Jobs
from vmconnect.direct.library import paramiko
from vmconnect.direct.login import Login
from vmconnect.direct.named import NamedSession, named_sessions
from vmconnect.direct.named_call import NamedStatus
from vmconnect.direct.process import Process
from vmconnect.direct.pump import Sink
from vmconnect.direct.result import Result
from vmconnect.direct.ssh import HostKeyCheck, SshConnection
from vmconnect.direct.transfer import download, upload
from vmconnect.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    GuestError,
    VmconnectError,
)
from vmconnect.progress import Progress, Silent
from vmconnect.secret import Secret
from vmconnect.streams import Stream

__all__ = ["Guest", "Opener"]

Opener = Callable[[Deadline], Stream]

_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.4)


class Guest(Channel):
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
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        on_start: Callable[[Control], object] | None = None,
        control: Callable[[str, Reach], Control] = Control,
    ) -> Result:
        """Run a command in the guest, and return what it gave.

        ``command`` is a sequence of words, each one argument, or a text for the guest's ``sh``.
        ``env`` is added to its environment, by way of its input: no value shows on the guest's
        command lines. ``cwd`` is where it runs. ``user`` is as whom: by ``runuser`` or ``su`` where
        root is logged in, else by ``sudo`` or ``doas``, which must ask for no password.

        ``stdin`` is sent as it is and then ended; None is an empty input. ``stdout`` and
        ``stderr`` take bytes as they come; without them they are kept in the result, up to
        256 MiB. A command that is not found gives exit code 127, one that cannot be executed
        126, as the guest's shell says. ``on_start`` is called just before the command is sent,
        with a `Control` of it, for any thread, made by ``control``. What fails before has not
        reached the guest.

        Raises ConnectionLostError when the guest goes away meanwhile, DeadlineError after
        ``timeout``, GuestError for more output than is kept, and where the command cannot be
        started there or so. Whatever is raised, also Ctrl-C: the command and all that it has
        started are ended first, with SIGKILL if need be.
        """
        prepared = self._prepared(command, env, cwd, user)
        with self.operations.doing("run", argv=prepared.argv) as operation:
            count = ByteCount(operation)
            deadline = Deadline.of(timeout)
            process = self._start(prepared, deadline, on_start, control)
            result = process.finish(
                count.sending(stdin), count.receiving(stdout), count.receiving(stderr), deadline
            )
            count.received(len(result.stdout) + len(result.stderr))
            operation.details |= {"exit_code": result.exit_code, "signal": result.signal}
            return result

    def start(
        self,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Process:
        """Start a command and return it while it runs; ``timeout`` is for its start.

        Else as `run`.
        """
        prepared = self._prepared(command, env, cwd, user)
        with self.operations.doing("start", argv=prepared.argv):
            return self._start(prepared, Deadline.of(timeout))

    def jobs(self, user: str | None = None) -> Jobs:
        """Return the background jobs of whom we log in as, or of another user."""
        return Jobs(self, user)

    def named(self, name: str, *, python: bool = False, user: str | None = None) -> NamedSession:
        """Return the session of that name: a shell, or a Python, that keeps its state.

        It is one of whom we log in as, or of another user. Raises TargetError for what is no name.
        """
        return NamedSession(self, name, kind="python" if python else "shell", user=user)

    def named_sessions(self, user: str | None = None) -> list[NamedStatus]:
        """Return the named sessions that are there."""
        return named_sessions(self, user)

    def _prepared(
        self, command: Words, env: Mapping[str, str] | None, cwd: str | None, user: str | None
    ) -> Command:
        try:
            return Command.of(command, env=env, cwd=cwd, user=user, login_user=self.login.user)
        except VmconnectError as error:
            raise error.with_machine(self.machine) from None

    def _start(
        self,
        command: Command,
        deadline: Deadline,
        on_start: Callable[[Control], object] | None = None,
        make_control: Callable[[str, Reach], Control] = Control,
    ) -> Process:
        connection = self._connect(deadline)
        reach = functools.partial(self._reach, connection, command.user)
        control = make_control(command.mark, reach)

        def attach(close: Callable[[], None]) -> None:
            control.attach(close)
            if on_start is not None:
                on_start(control)

        channel = connection.open(command.line, deadline.sooner(30.0), attach)
        return self._process(command, connection, channel, control, deadline)

    def _process(
        self,
        command: Command,
        connection: SshConnection,
        channel: paramiko.Channel,
        control: Control,
        deadline: Deadline,
    ) -> Process:
        conclude = functools.partial(self._status, connection)
        process = Process(command, channel, control, self.machine, conclude)
        process.greet(deadline)
        return process

    def _reach(
        self, connection: SshConnection, user: str | None, words: Sequence[str], seconds: float
    ) -> int:
        """Run something beside a command of this connection, as its user."""
        if not connection.alive:
            raise connection.lost("a command was to be reached")
        deadline = Deadline(seconds)
        command = Command.of(words, user=user)
        other: SshConnection | None = None
        try:
            try:
                channel = connection.open(command.line, deadline)
            except GuestError:  # It takes no more commands at once.
                connection = other = self._dial(deadline, wait=False)
                channel = connection.open(command.line, deadline)
            nothing = Control(command.mark, lambda *_: 1)
            process = self._process(command, connection, channel, nothing, deadline)
            code = process.finish(None, None, None, deadline).exit_code
            return 255 if code is None else code
        finally:
            if other is not None:
                other.close()

    def _status(
        self, connection: SshConnection, channel: paramiko.Channel
    ) -> tuple[int | None, str | None]:
        """Return exit code and signal of a command that has ended, or raise why there is none."""
        signal = connection.exit_signal(channel)
        if channel.exit_status < 0 and signal is None:
            raise self._no_status(connection)
        return (None if signal else channel.exit_status), signal

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
            connection = self._connect(Deadline.of(timeout))
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
            connection = self._connect(Deadline.of(timeout))
            operation.received = download(connection.sftp, remote, local, progress or Silent())
            return operation.received

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
