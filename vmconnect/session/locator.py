"""Where a session's machine is now.

A machine is known by its identity, and found anew before each connection: its VNC port, its
context id, its sockets may all have changed with its last start, and another machine may be where
it was. Where no hypervisor can be asked, of a bare address, it is where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ClosedError,
    MachineOffError,
    MachineReplacedError,
    TargetError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Hypervisor, Machine, PowerState
from vmconnect.session.resolve import hypervisor_of

__all__ = ["Locator"]

# How long the answer that found the machine at first counts, and a later one, which two channels
# may want at the same time (seconds).
_FIRST_SECONDS, _FRESH_SECONDS = 2.0, 0.05

# How long one question may take (seconds).
_QUESTION_SECONDS = 5.0

# How often a machine that is not where it was is looked for elsewhere (seconds): all machines
# there are asked then.
_ELSEWHERE_SECONDS = 2.0

_LIVE = {PowerState.RUNNING, PowerState.PAUSED}

Told = Callable[[Machine, "Machine | VmconnectError"], object]
"""What takes the answer to a question: the machine as it was known, and as it is, or why not."""


class Locator:
    """Finds one machine again and again; for any thread.

    ``begin`` is called before a question, and what it returns with the answer: so whoever has
    heard news meanwhile can tell that the answer is older.
    """

    def __init__(self, machine: Machine, begin: Callable[[], Told]):
        self._machine = machine
        self._begin = begin
        self._asking = threading.Lock()
        self._fresh_until = time.monotonic() + _FIRST_SECONDS if machine.state in _LIVE else 0.0
        self._searched_at = self._answered_at = float("-inf")
        self._closed = False
        self._hypervisor: Hypervisor | None
        try:
            self._hypervisor = hypervisor_of(machine)
        except (TargetError, UnsupportedError):
            self._hypervisor = None

    @property
    def machine(self) -> Machine:
        """The machine as it was found last."""
        return self._machine

    @property
    def hypervisor(self) -> Hypervisor | None:
        """Who runs it; None of a bare address."""
        return self._hypervisor

    def doubt(self) -> None:
        """Note that the machine may not be where it was: the next question is asked anew."""
        self._fresh_until = 0.0

    def locate(self, deadline: Deadline) -> Machine:
        """Return the machine as it is now.

        Raises MachineOffError if its hypervisor does not have it, MachineReplacedError if another
        machine is in its place, and what the hypervisor raises when it does not answer.
        """
        if self._hypervisor is None or time.monotonic() < self._fresh_until:
            return self._machine
        return self.look(deadline)

    def look(self, deadline: Deadline) -> Machine:
        """Ask the hypervisor, however fresh the last answer is; as `locate`."""
        hypervisor, name = self._hypervisor, self._machine.name
        if hypervisor is None:
            return self._machine
        deadline = deadline.sooner(_QUESTION_SECONDS)
        asked = time.monotonic()
        # One question at a time; who has waited for another's answer has his own with it.
        left = deadline.remaining()
        if not self._asking.acquire(timeout=-1 if left is None else left):
            deadline.check("waiting for the hypervisor")
        answer: Machine | VmconnectError
        try:
            if self._answered_at > asked:
                return self._machine
            if self._closed:
                raise ClosedError("the session is closed", machine=name)
            before, told = self._machine, self._begin()
            try:
                answer = self._machine = self._find(hypervisor, deadline)
            except VmconnectError as error:
                answer = error.with_machine(name)
            else:
                self._answered_at = time.monotonic()
                self._fresh_until = self._answered_at + _FRESH_SECONDS
        finally:
            self._asking.release()
        # Whoever hears of it may ask in his turn.
        told(before, answer)
        if isinstance(answer, VmconnectError):
            raise answer
        return answer

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._hypervisor is not None:
            self._hypervisor.close()

    def _find(self, hypervisor: Hypervisor, deadline: Deadline) -> Machine:
        known, now = self._machine, time.monotonic()
        elsewhere = now - self._searched_at >= _ELSEWHERE_SECONDS
        if elsewhere:
            self._searched_at = now
        found = hypervisor.find_again(known, deadline, elsewhere=elsewhere)
        if found is None:
            raise MachineOffError("off", machine=known.name, hint="it has ended: start it again")
        # A machine that has no UUID is known by its place, whatever is there; once it has one it
        # keeps that.
        if found.identity != known.identity and known.uuid is not None:
            raise MachineReplacedError(
                f"another machine is in its place: {found.name}, {found.uuid or 'with no UUID'}",
                machine=known.name,
                hint=f"it had the UUID {known.uuid}; connect to the other one by its own name",
            )
        return found
