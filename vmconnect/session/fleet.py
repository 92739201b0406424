"""Many machines as one: the same login, and the same work on all of them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vmconnect.closing import Closing, together
from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, TargetError
from vmconnect.hypervisor import Machine
from vmconnect.secret import Secret
from vmconnect.session.credentials import ask_secret
from vmconnect.session.key_store import PublicKey
from vmconnect.session.selection import Selection, select
from vmconnect.session.session import Session
from vmconnect.session.shared_answers import SharedAnswers
from vmconnect.session.sweep import CUT_SECONDS, Outcome, Place, Sweep
from vmconnect.session.trust import TrustStore

if TYPE_CHECKING:
    from vmconnect.direct import Guest, Result, Script

__all__ = ["THROTTLE", "Fleet", "Member", "connect_all"]

T = TypeVar("T")

THROTTLE = 32
"""On how many machines work is done at once, unless another number is given."""

Input = Callable[[], Iterable[bytes]]
Sink = Callable[[str, bytes], object]


def _refuse(_machine: Machine, _key: PublicKey) -> bool:
    return False


def connect_all(
    *targets: str,
    everything: bool = False,
    without: Sequence[str] = (),
    timeout: Deadline | float | None = 10.0,
    **options: Any,
) -> Fleet:
    """Find the machines that targets, patterns (``web*``) and groups (``@web``) mean.

    ``everything`` adds all that run here, ``without`` leaves some out
    (`vmconnect.session.selection`); ``options`` are those of `Fleet`. Nothing is logged in to yet.
    A target that leads nowhere is an `Outcome` of all that the fleet does.

    Raises TargetError, MachineNotFoundError where no machine is left, ResourceError for a groups
    file that cannot be read.
    """
    return Fleet(
        select(targets, everything=everything, without=without, timeout=timeout), **options
    )


class Fleet(Closing):
    """Machines that are to do the same; each is logged in to when its turn comes.

    As many at a time as ``throttle`` says. The login's options are those of `Session.guest`;
    ``accept_host_key`` is called with the machine too, from one thread at a time. What a person
    is asked is asked once for all (`SharedAnswers`), by ``ask``.
    With ``keep`` guests stay logged in to until the fleet is closed; without, until their work is
    done. ``on_login`` is called with what a machine is called and its guest. For any thread.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        throttle: int = THROTTLE,
        user: str | None = None,
        identity_files: Sequence[Path] = (),
        password: Secret | str | None = None,
        passphrase: Secret | str | None = None,
        accept_host_key: Callable[[Machine, PublicKey], bool] = _refuse,
        ask: Callable[[str], Secret | None] = ask_secret,
        login_timeout: float | None = 30.0,
        wait: bool = False,
        keep: bool = False,
        on_login: Callable[[str, Guest], object] | None = None,
    ):
        if throttle < 1:
            raise TargetError(f"work cannot be done on {throttle} machines at once")
        self.selection = selection
        self.throttle = throttle
        self._keep = keep
        self._on_login = on_login
        self._accept = accept_host_key
        self._accepting = threading.Lock()
        self._trust = TrustStore()
        self._answers = SharedAnswers(ask)
        login = functools.partial(
            _log_in,
            user=user,
            identity_files=tuple(identity_files),
            password=Secret.of(password),
            passphrase=Secret.of(passphrase),
            timeout=login_timeout,
            wait=wait,
        )
        labels = selection.labels
        self.members = tuple(
            Member(machine, labels[machine.target], self, login) for machine in selection.machines
        )
        """One for each machine that was found."""

    def each(self, work: Callable[[Member], T]) -> Sweep[T]:
        """Do ``work`` on every machine, and return what goes on.

        ``work`` is called in several threads with a `Member`, whose ``guest()`` is logged in to
        then. What it returns is the outcome's result; a VmconnectError that it raises is its error.
        """

        def do(place: Place) -> T:
            member = cast("Member", place)
            try:
                return work(member)
            finally:
                if not self._keep:
                    member.close()

        import_module(
            "vmconnect.direct.guest"
        )  # Once, rather than in all threads at the same time.
        known: list[Outcome[T]] = [
            Outcome(str(error.machine), None, None, error) for error in self.selection.errors
        ]
        return Sweep(self.members, do, self.throttle, known)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Input | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        **options: Any,
    ) -> Sweep[Result]:
        """Run ``argv`` in every guest.

        ``stdin`` is given to each of them: bytes, or a function that begins anew for each.
        ``stdout`` and ``stderr`` are called with what a machine is called and what its command has
        written, from several threads; without them it is kept in the results. ``options`` are
        those of `Guest.run`.
        """
        streams = _streams(stdin, stdout, stderr)
        return self.each(lambda member: member.run(argv, **streams(member), **options))

    def script(
        self,
        script: Script | Path | str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes | Input | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        **options: Any,
    ) -> Sweep[Result]:
        """Run a script of ours in every guest, and leave nothing of it there; else as `run`.

        See `vmconnect.direct.script`, which also says what errors a script may have.
        """
        from vmconnect.direct.script import Script, run_script

        read = script if isinstance(script, Script) else Script.read(script)
        streams = _streams(stdin, stdout, stderr)
        return self.each(
            lambda member: run_script(member, read, arguments, **streams(member), **options)
        )

    def call(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Sweep[Any]:
        """Have every guest's Python call a function of ours; see `GuestFunction`."""
        from vmconnect.direct.guest_function import GuestFunction

        called = GuestFunction.of(function)
        return self.each(lambda member: called.on(member, *args, **kwargs))

    def close(self) -> None:
        """Log out everywhere, and end what is being done, in some seconds at most."""
        together([member.cut for member in self.members], Deadline(CUT_SECONDS))

    def accepts(self, machine: Machine, key: PublicKey) -> bool:
        """Ask whether a key that was never seen is the machine's: one question at a time."""
        with self._accepting:
            return self._accept(machine, key)

    def logged_in(self, label: str, guest: Guest) -> None:
        """Tell of a login."""
        if self._on_login is not None:
            self._on_login(label, guest)

    def session(self, machine: Machine) -> Session:
        """Return a new session with one of the machines."""
        return Session(machine, self._trust)

    def answer(self, machine: Machine, prompt: str) -> Secret | None:
        """Return what a person says to what the login to a machine asks."""
        return self._answers.ask(machine.name, prompt)


class Member:
    """One machine of a fleet; ``label`` is what it is called there."""

    def __init__(
        self,
        machine: Machine,
        label: str,
        fleet: Fleet,
        log_in: Callable[[Session, Fleet], Guest],
    ):
        self.machine = machine
        self.label = label
        self.target = machine.target
        self._fleet = fleet
        self._log_in = log_in
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._guest: Guest | None = None
        self._cut = False

    def guest(self) -> Guest:
        """Return its guest, logging in if need be; raises what `Session.guest` raises."""
        with self._lock:
            if self._cut:
                raise ClosedError("the fleet is closed", machine=self.label)
            guest = self._guest
            if guest is not None and guest.alive:
                return guest
            session = self._session = self._session or self._fleet.session(self.machine)
        guest = self._log_in(session, self._fleet)
        with self._lock:
            self._guest = guest
        self._fleet.logged_in(self.label, guest)
        return guest

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        """Run ``argv`` in its guest, as `Guest.run` does."""
        return self.guest().run(argv, **options)

    def close(self) -> None:
        """Log out; it can be logged in to again."""
        with self._lock:
            session, self._session, self._guest = self._session, None, None
        if session is not None:
            session.close()

    def cut(self) -> None:
        """End what is being done, as Ctrl-C ends it on one machine, log out, and stay so."""
        with self._lock:
            self._cut, guest = True, self._guest
        if guest is not None:
            guest.take_leave("INT")
        self.close()


def _streams(
    stdin: bytes | Input | None, stdout: Sink | None, stderr: Sink | None
) -> Callable[[Member], dict[str, Any]]:
    """Return how each member's command gets its own input, and outputs that know whose they are."""

    def of(member: Member) -> dict[str, Any]:
        return {
            "stdin": stdin() if callable(stdin) else stdin,
            "stdout": stdout and functools.partial(stdout, member.label),
            "stderr": stderr and functools.partial(stderr, member.label),
        }

    return of


def _log_in(session: Session, fleet: Fleet, **options: Any) -> Guest:
    machine = session.machine
    return session.guest(
        accept_host_key=functools.partial(fleet.accepts, machine),
        ask=functools.partial(fleet.answer, machine),
        **options,
    )
