"""All machines of all hypervisors, also when one of them hangs or refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import DeadlineError, VmconnectError
from vmconnect.hypervisor import Hypervisor, Machine
from vmconnect.session.places import hypervisors

__all__ = ["Inventory", "ask_all", "list_machines", "take_inventory"]

T = TypeVar("T")

# A hypervisor has until the deadline. What is past that is a call into the system that does not
# come back, a dead NFS server's for instance, and is not waited for.
_GRACE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Inventory:
    """The machines that there are, and the errors of the hypervisors that could not be asked."""

    machines: tuple[Machine, ...]
    errors: tuple[VmconnectError, ...] = ()


def take_inventory(timeout: Deadline | float | None = 10.0) -> Inventory:
    """Ask every hypervisor known here for its machines, all at the same time."""
    deadline = Deadline.of(timeout)
    answers = ask_all(hypervisors(), lambda each: each.machines(deadline), deadline)
    return gathered(answers)


def gathered(answers: Sequence[list[Machine] | VmconnectError]) -> Inventory:
    """Put the answers of several hypervisors together: the machines by name, each once."""
    found = {
        machine.target: machine
        for answer in answers
        if not isinstance(answer, VmconnectError)
        for machine in answer
    }
    return Inventory(
        tuple(sorted(found.values(), key=lambda each: (each.name, each.target))),
        tuple(answer for answer in answers if isinstance(answer, VmconnectError)),
    )


def list_machines(timeout: Deadline | float | None = 10.0) -> list[Machine]:
    """Return the machines of all hypervisors known here, by name.

    One that cannot be asked is left out; `take_inventory` tells of it.
    """
    return list(take_inventory(timeout).machines)


def ask_all(
    asked: Sequence[Hypervisor], question: Callable[[Hypervisor], T], deadline: Deadline
) -> list[T | VmconnectError]:
    """Ask hypervisors the same question at the same time, close them, and return what each said.

    An answer is an error where there was one; one that does not come by the deadline is a
    DeadlineError.
    """
    answers: list[T | VmconnectError | BaseException | None] = [None] * len(asked)

    def ask(place: int) -> None:
        try:
            with asked[place] as hypervisor:
                answers[place] = question(hypervisor)
        except BaseException as error:  # noqa: BLE001 (the caller's to raise)
            answers[place] = error

    if len(asked) == 1:
        ask(0)  # A thread would only cost time.
    else:
        threads = [
            threading.Thread(target=ask, args=(place,), name=f"vmconnect {each}", daemon=True)
            for place, each in enumerate(asked)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            left = deadline.remaining()
            thread.join(None if left is None else left + _GRACE_SECONDS)
    result: list[T | VmconnectError] = []
    for hypervisor, answer in zip(asked, answers, strict=True):
        if answer is None:
            result.append(
                DeadlineError(f"{hypervisor} did not answer in time", hint="is its host well?")
            )
        elif isinstance(answer, BaseException) and not isinstance(answer, VmconnectError):
            raise answer
        else:
            result.append(answer)
    return result
