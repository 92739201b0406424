"""The command channel into one guest."""

from __future__ import annotations

import contextlib
import functools
import shlex
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmconnect.channel import Channel, ChannelState, Lost
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.direct.authentication import AttemptsExhaustedError
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.command import Command, Words
from vmconnect.direct.control import Control, Reach
from vmconnect.direct.files import GuestFiles
from vmconnect.direct.job import Jobs
from vmconnect.direct.library import paramiko
from vmconnect.direct.login import Login, Memory
from vmconnect.direct.named import NamedSession, named_sessions
from vmconnect.direct.named_call import NamedStatus
from vmconnect.direct.process import Process
from vmconnect.direct.pump import Sink
from vmconnect.direct.result import Result
from vmconnect.direct.ssh import HostKeyCheck, SshConnection
from vmconnect.errors import (
    AuthenticationError,
    CommandLostError,
    ConnectionLostError,
    GuestError,
    VmconnectError,
)
from vmconnect.operation import Operation
from vmconnect.retry import Heartbeat, Retry
from vmconnect.secret import Secret
from vmconnect.streams import Stream

if TYPE_CHECKING:  # Not every command needs them.
    from vmconnect.direct.asciicast import AsciicastRecorder
    from vmconnect.direct.copy import Place, PortOpener
    from vmconnect.direct.facts import Facts
    from vmconnect.direct.forward import Forward, ForwardKind, ForwardSpec
    from vmconnect.direct.script import Script
    from vmconnect.direct.shell import Shell
    from vmconnect.direct.terminal import Terminal

__all__ = ["Guest", "Opener"]

Opener = Callable[[Deadline], Stream]
"""Finds the guest and dials it; asked for each connection anew."""

# How long a connection, and a command's start, are waited for if the caller has all the time.
_READY_SECONDS = 60.0
_START_SECONDS = 30.0
# How long those that are under way may take to end when the guest is closed.
_LEAVE_SECONDS = 5.0
# How soon a lost connection is known to all.
_NOTICING_SECONDS = 1.0
_LOST_HINT = "did the guest power off or restart?"


class Guest(GuestFiles, Channel):
    """Commands and files in one guest, over SSH on whatever stream ``opener`` dials.

    Made by `Guest.open`. Calls may come from several threads: they run side by side on one
    connection. When it is lost, the calls under way fail, and say what is known of them; nothing
    is run again by itself. With a `Retry` the channel comes back, and later calls wait for it.
    To close it ends what `run` and `start` have under way there (`take_leave`), and hangs up on
    shells.
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
        self.dial_port: PortOpener | None = None
        """How a vsock port of the guest is dialled, where that can be: for what is copied."""

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
        operation: Operation | None = None,
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
        reached the guest. ``operation`` is what it is told of as, to the journal for instance: by
        default as a ``run`` of the command.

        While the channel is lost it waits, for as long as ``timeout`` allows, and a minute
        without one. Raises CommandLostError when the guest goes away meanwhile, DeadlineError
        after ``timeout``, GuestError for more output than is kept, and where the command cannot
        be started there or so. Whatever is raised, also Ctrl-C: the command and all that it has
        started are ended first, with SIGKILL if need be.
        """
        prepared = self._prepared(command, env, cwd, user)
        operation = operation or Operation("run", {"argv": prepared.argv})
        with self.operations.during(operation):
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
        connection, channel = self._channel(deadline)
        reach = functools.partial(self._reach, connection, command.user)
        control = make_control(command.mark, reach)

        def attach(close: Callable[[], None]) -> None:
            control.attach(close)
            if on_start is not None:
                on_start(control)
            # What has not been sent is not under way.
            connection.under_way.add(channel, shlex.join(command.argv), control)

        process = self._process(command, connection, channel, control)
        try:
            until = deadline.sooner(_START_SECONDS)
            connection.execute(channel, command.line, until, attach)
            process.greet(deadline)
        except BaseException as error:
            channel.close()
            if isinstance(error, CommandLostError):
                raise
            if isinstance(error, ConnectionLostError) and not connection.alive:
                raise self._lost(command.argv, error, started=False) from error.__cause__
            if control.hung_up:
                # Its channel's end looks like a refusal; it may run, and hears of no hanging up.
                control.end("HUP")
            if control.hung_up or isinstance(error, GuestError):
                connection.under_way.remove(channel)
            # What else it may be, it may have started: it is ended with what is under way.
            raise
        return process

    def _process(
        self,
        command: Command,
        connection: SshConnection,
        channel: paramiko.Channel,
        control: Control,
    ) -> Process:
        return Process(
            command,
            channel,
            control,
            self.machine,
            functools.partial(self._status, connection, command.argv),
            settled=lambda: connection.under_way.remove(channel),
        )

    def _reach(
        self, connection: SshConnection, user: str | None, words: Sequence[str], seconds: float
    ) -> int:
        """Run something beside a command of this connection, as its user."""
        if not connection.alive:
            raise connection.lost("a command was to be reached")
        deadline = self._scope.deadline(seconds)
        command = Command.of(words, user=user)
        other: SshConnection | None = None
        try:
            try:
                channel = connection.open(deadline)
            except GuestError:  # It takes no more commands at once.
                connection = other = self._dial(deadline)
                channel = connection.open(deadline)
            process = self._process(
                command, connection, channel, Control(command.mark, lambda *_: 1)
            )
            connection.execute(channel, command.line, deadline)
            process.greet(deadline)
            code = process.finish(None, None, None, deadline).exit_code
            return 255 if code is None else code
        finally:
            if other is not None:
                other.close()

    def _status(
        self, connection: SshConnection, argv: Sequence[str], channel: paramiko.Channel
    ) -> tuple[int | None, str | None]:
        """Return exit code and signal of a command that has ended, or raise why there is none."""
        signal = connection.exit_signal(channel)
        if connection.under_way.was_told_to_end(channel):
            raise self._ended()
        if channel.exit_status < 0 and signal is None:
            raise self._no_status(argv, connection)
        return (None if signal else channel.exit_status), signal

    def shell(
        self,
        argv: Sequence[str] = (),
        *,
        terminal: Terminal | None = None,
        environment: Mapping[str, str] | None = None,
        output: Sink | None = None,
        recorder: AsciicastRecorder | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Shell:
        """Start the user's shell, or ``argv``, on a terminal in the guest; ``timeout`` is to start.

        ``environment`` are variables that it is to have, as far as the guest accepts them. What it
        writes is to be read from the `Shell`, or goes to ``output`` as it comes. ``recorder``
        records it, and is closed with it.

        Raises GuestError when the guest refuses, ConnectionLostError, DeadlineError.
        """
        from vmconnect.direct.shell import Shell
        from vmconnect.direct.terminal import Terminal

        deadline = Deadline.of(timeout)
        with contextlib.ExitStack() as stack:
            operation = stack.enter_context(
                self.operations.doing("shell", **({"argv": tuple(argv)} if argv else {}))
            )
            connection = self._ready(deadline)
            channel = connection.open_on_terminal(
                terminal or Terminal(), environment or {}, shlex.join(argv) or None, deadline
            )
            return Shell(
                connection,
                channel,
                argv,
                operation=operation,
                life=stack.pop_all(),
                output=output,
                recorder=recorder,
            )

    def info(self, timeout: Deadline | float | None = 30.0) -> Facts:
        """Ask the guest what it is; raises GuestError where it has no POSIX shell, and as `run`."""
        from vmconnect.direct.facts import FACTS_BYTES, FACTS_SCRIPT, parse_facts

        said = bytearray()

        def take(data: bytes) -> None:
            if len(said) < FACTS_BYTES:
                said.extend(data)

        result = self.run(
            ["sh", "-c", FACTS_SCRIPT], stdout=take, timeout=timeout, operation=Operation()
        )
        if not result.ok:
            raise GuestError("it cannot tell what it is: it has no sh", machine=self.machine)
        return parse_facts(bytes(said))

    def prepare(self) -> None:
        """Have the next command start a little sooner, if that can be; for who will want one."""
        connection = self._connection
        if connection is not None:
            connection.prepare()

    def script(
        self, script: Script | Path | str, arguments: Sequence[str] = (), **options: Any
    ) -> Result:
        """Run a script of ours in the guest, and leave nothing of it there; see `run_script`."""
        from vmconnect.direct.script import run_script

        return run_script(self, script, arguments, **options)

    def call(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
        """Have the guest's Python call a function of ours; see `GuestFunction.on`."""
        from vmconnect.direct.guest_function import GuestFunction

        return GuestFunction.of(function).on(self, *args, **kwargs)

    def _place(self, deadline: Deadline) -> Place:
        from vmconnect.direct.copy import Place

        return Place(self._ready(deadline), self.dial_port)

    def forward(
        self,
        spec: ForwardSpec | str,
        kind: ForwardKind | str = "L",
        *,
        on_trouble: Callable[[VmconnectError], object] | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Forward:
        """Listen here, or in the guest, and join who connects there to the other side.

        ``spec`` is as ssh's (`vmconnect.direct.forward.ForwardSpec`), ``kind`` its option's letter:
        ``L``, ``R`` or ``D``. It listens when this returns, until it or the channel is closed.
        ``on_trouble`` is told of connections that could not be made.

        Raises TargetError for the specification, ResourceError if it cannot listen here,
        GuestError if the guest refuses to, and what connecting raises.
        """
        from vmconnect.direct.forward import Forward

        return Forward.over(self, self._ready, spec, kind, on_trouble=on_trouble, timeout=timeout)

    def _connect(self, deadline: Deadline) -> None:
        self._connection = self._dial(deadline)

    def _dial(self, deadline: Deadline) -> SshConnection:
        """Return another connection, logged in."""
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
                return connection

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
        return Lost(uncertain=connection.under_way.lines)

    def take_leave(self, first: str = "TERM") -> None:
        """End the commands that are under way, and start no more; `close` does so first.

        All get the signal ``first``, and SIGKILL about a second later, and are waited for side by
        side, for some seconds at most. Whoever waits for one gets a ClosedError. Jobs and named
        sessions live on.
        """
        connection = self._connection
        if connection is not None and connection.alive:
            connection.under_way.end(first, _LEAVE_SECONDS)

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
