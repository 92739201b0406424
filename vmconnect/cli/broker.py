"""The broker's process: ``python -m vmconnect.cli.broker``, which nobody has to start by hand.

It runs what other processes would, by the same code: the same parser, the same commands, the same
words for what goes wrong. Where that takes a person, or something of the client's process that it
does not have, the client does it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from vmconnect.broker.broker import Broker
from vmconnect.broker.claim import Claim
from vmconnect.broker.key import SessionKey
from vmconnect.broker.log import open_log
from vmconnect.broker.request import DeclinedError, Request
from vmconnect.broker.warm import WarmSession, WarmSessions
from vmconnect.cli import exec as exec_command
from vmconnect.cli.command_line import Parser, verdict
from vmconnect.cli.login import login_seconds
from vmconnect.cli.voice import line
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest
from vmconnect.direct.control import Control
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine
from vmconnect.session import Session, Target, parse_target
from vmconnect.session.memory import MachineMemory
from vmconnect.session.target import FileTarget, LibvirtTarget, NamedTarget

__all__ = ["Commands", "main"]

# How long a session stays open after its last command, and then the broker without any.
_IDLE_SECONDS = 600.0
_IDLE_VARIABLE = "VMCONNECT_BROKER_IDLE"
_COMMAND = "exec"
# Its options that are done here as well as in the client's own process.
_OPTIONS = frozenset(
    {
        "target",
        "user",
        "identity_files",
        "accept_new_host_key",
        "wait",
        "no_stdin",
        "timeout",
        "json",
        "env",
        "cwd",
        "as_user",
        "detach",
        "session",
        "python",
        "no_broker",
        "argv",
    }
)
# Failures to open a session that nobody's presence would change. A login that is refused here may
# be granted where a person can be asked.
_FINAL_ERRORS = (ConnectError, ConnectionLostError, DeadlineError, UnsupportedError)

_log = logging.getLogger("vmconnect.broker.commands")


class Commands:
    """Runs what clients order, and remembers the machines that they name."""

    def __init__(self) -> None:
        self._machines = MachineMemory()

    def __call__(self, request: Request, sessions: WarmSessions) -> int:
        """Run a command, and return its exit code; raises DeclinedError."""
        return _concluded(request, lambda: _Command(request, sessions, self._machines).run())


def _concluded(request: Request, run: Callable[[], int]) -> int:
    """Return what ``run`` does; of an error, say what `vmconnect.cli.main` would."""
    try:
        return run()
    except BaseException as error:
        if isinstance(error, DeclinedError) and not request.interrupted:
            raise
        ended = KeyboardInterrupt() if request.interrupted else error
        if not isinstance(ended, VmconnectError | KeyboardInterrupt | BrokenPipeError):
            _log.exception("a command failed")
        text, code = verdict(_COMMAND, ended)
        if text:
            # Whoever would read it may have left.
            with contextlib.suppress(OSError, KeyboardInterrupt):
                request.say(line(text))
        return code


class _Command:
    """One ``vmconnect exec`` of a client's."""

    def __init__(self, request: Request, sessions: WarmSessions, machines: MachineMemory):
        self._request = request
        self._sessions = sessions
        self._machines = machines
        self._arguments = _parsed(request.order.argv)
        self._files = tuple(
            Path(request.order.directory, each) for each in self._arguments.identity_files
        )
        self._begun = self._started = False
        # Of the request itself `Standard` has these.
        self.input = request.input
        self.output = request.output
        self.error_output = request.error_output

    def say(self, text: str, /) -> None:
        """Print a message of our own."""
        self._request.say(line(text))

    def run(self) -> int:
        """Find the machine, run the command in a session with it, return the exit code."""
        target = _target(self._arguments.target)
        while True:
            with exec_command.one_machine(self._arguments.target):
                machine, remembered = self._machines.resolve(target)
            try:
                return self._run_on(machine)
            except DeadlineError:
                raise  # It would take as long once more.
            except VmconnectError:
                if self._started or not remembered:
                    raise
                self._machines.forget(target)

    def _run_on(self, machine: Machine) -> int:
        while True:
            with self._borrowed(machine) as (warm, reused):
                try:
                    code = self._run_in(warm.guest)
                    if warm.has_room:
                        self._request.afterwards(warm.guest.prepare)
                    return code
                except VmconnectError as error:
                    if self._started or not self._may_work_elsewhere(warm, reused, error):
                        raise

    def _run_in(self, guest: Guest) -> int:
        if not self._begun:
            self._begun = True
            self._request.begin()
        return exec_command.run_in(
            guest,
            guest.machine,
            self._arguments,
            self,
            on_start=self._on_start,
            was_interrupted=lambda: "INT" in self._request.signals,
        )

    def _on_start(self, control: Control) -> None:
        self._started = True
        self._request.started(control.hang_up, control.signal)

    def _may_work_elsewhere(self, warm: WarmSession, reused: bool, error: VmconnectError) -> bool:
        """Return whether a command that could not start may do so in another session."""
        self._request.check()
        if isinstance(error, GuestError) and warm.running > 1:
            self._sessions.spare(warm)
            return True
        if not reused:
            return False
        # It was left open, and the guest may have forgotten it: one that was put back into an
        # earlier state has.
        self._sessions.retire(warm)
        return True

    @contextlib.contextmanager
    def _borrowed(self, machine: Machine) -> Iterator[tuple[WarmSession, bool]]:
        deadline = Deadline(login_seconds(self._arguments))
        agent = self._request.order.agent
        key = SessionKey.of(machine, self._arguments.user, self._files, agent)
        opener = functools.partial(self._open, machine, deadline)
        with self._sessions.borrow(key, opener, deadline, self._request) as borrowed:
            yield borrowed

    def _open(self, machine: Machine, deadline: Deadline) -> tuple[Session, Guest]:
        arguments = self._arguments
        session = Session(machine)
        try:
            return session, session.guest(
                user=arguments.user,
                identity_files=self._files,
                agent_socket=self._request.order.agent,
                accept_host_key=lambda _: arguments.accept_new_host_key,
                timeout=deadline,
                wait=arguments.wait > 0,
            )
        except BaseException as error:
            session.close()
            if isinstance(error, _FINAL_ERRORS):
                raise
            raise DeclinedError(
                type(error).__name__, lasting=isinstance(error, AuthenticationError)
            ) from error


def _parsed(argv: list[str]) -> argparse.Namespace:
    """Read a command line; raises DeclinedError for one that ends in reading it, or asks for more.

    What a usage error prints, the client prints.
    """
    if argv[:1] != [_COMMAND]:
        raise DeclinedError("another command")
    parser = _parser()
    try:
        arguments = parser.parse_args(exec_command.arrange(argv)[1:])
    except SystemExit as error:
        raise DeclinedError("usage") from error
    for option, value in vars(arguments).items():
        if option not in _OPTIONS and value != parser.get_default(option):
            raise DeclinedError(f"the option {option}")
    if not all("=" in each for each in arguments.env):
        raise DeclinedError("a variable of the client's")
    return arguments


@functools.cache
def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=f"vmconnect {_COMMAND}")
    exec_command.configure(parser)
    return parser


def _target(text: str) -> Target:
    """Read a target; raises TargetError, and DeclinedError where the client's process is wanted.

    On the way to another host somebody may be asked for a password; a file may be named from the
    client's directory.
    """
    target = parse_target(text)
    places = os.environ.get("VMCONNECT_HYPERVISORS", "").split()
    if (
        isinstance(target, FileTarget)
        or text.startswith("ssh://")
        or (isinstance(target, LibvirtTarget) and target.address.remote)
        or (
            isinstance(target, NamedTarget)
            and any("://" in each and ":///" not in each for each in places)
        )
    ):
        raise DeclinedError("a target that is not reached from here")
    return target


def _idle_seconds() -> float:
    try:
        return max(1.0, float(os.environ[_IDLE_VARIABLE]))
    except (KeyError, ValueError):
        return _IDLE_SECONDS


def main() -> None:
    """Be the user's broker, unless there is one."""
    # What this process was started with is not its own: a directory that somebody may want to
    # unmount, the end of a pipe that somebody waits for.
    os.chdir("/")
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):  # one of them was that of the list
            if int(path.name) > 2:
                os.close(int(path.name))
    os.umask(0o077)
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(VmconnectError, OSError):  # a broker without a log is one too
        open_log()
    claim = Claim.take()
    if claim is not None:
        Broker(claim, Commands(), _idle_seconds()).run()


if __name__ == "__main__":
    main()
