"""Checks: what is tried in which order, and what comes of it.

A check is one link of a chain. It names the links that it hangs on, and is not tried where one of
them is broken. It has a time of its own, and a thread: what does not come back is left behind.
"""

from __future__ import annotations

import contextvars
import enum
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError

__all__ = ["Check", "Finding", "Outcome", "Verdict", "broken", "examine", "fine", "skipped", "warn"]

S = TypeVar("S")

# What is past its deadline by that much does not come back.
_GRACE_SECONDS = 1.0


class Outcome(enum.Enum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial found: how it is, and what mends or betters it.

    ``blocks`` says that what hangs on this link cannot be tried.
    """

    outcome: Outcome
    account: str
    remedy: str | None = None
    blocks: bool = False


def fine(account: str) -> Verdict:
    """Say that all is well."""
    return Verdict(Outcome.OK, account)


def warn(account: str, remedy: str | None = None, *, blocks: bool = False) -> Verdict:
    """Say what somebody should know of what works, or may."""
    return Verdict(Outcome.WARNING, account, remedy, blocks)


def broken(account: str, remedy: str | None = None) -> Verdict:
    """Say that it does not work; nothing that hangs on it is tried."""
    return Verdict(Outcome.BROKEN, account, remedy, blocks=True)


def skipped(account: str, *, blocks: bool = False) -> Verdict:
    """Say that there is nothing to try; without ``blocks``, what hangs on it is tried."""
    return Verdict(Outcome.NOT_TRIED, account, blocks=blocks)


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """One link: its name, what it hangs on, how it is tried, and how long that may take.

    ``tries`` says for people what is done; ``trial`` does it, with the subject and a deadline, and
    returns a verdict or raises VmconnectError: then it is broken. ``remedy`` is what to say where
    neither knows better.
    """

    name: str
    needs: tuple[str, ...]
    tries: str
    trial: Callable[[S, Deadline], Verdict]
    seconds: float = 5.0
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that is over; ``seconds`` is what it took, 0 where it was not tried."""

    check: str
    tries: str
    outcome: Outcome
    account: str
    remedy: str | None = None
    seconds: float = 0.0
    blocks: bool = False


def examine(
    checks: Sequence[Check[S]],
    subject: S,
    begin: Callable[[Check[S]], object] = lambda _check: None,
) -> Iterator[Finding]:
    """Try the checks in order, and give what comes of each; ``begin`` is told of one before."""
    found: dict[str, Finding] = {}
    for check in checks:
        finding = _blocked(check, found)
        if finding is None:
            begin(check)
            finding = _tried(check, subject)
        found[check.name] = finding
        yield finding


def _blocked(check: Check[S], found: dict[str, Finding]) -> Finding | None:
    for name in check.needs:
        before = found[name]
        if before.blocks:
            match before.outcome:
                case Outcome.BROKEN:
                    why = f"{name} is broken"
                case Outcome.NOT_TRIED:
                    why = before.account  # The link that is broken, not the ones between.
                case _:
                    why = f"it needs {name}"
            return Finding(check.name, check.tries, Outcome.NOT_TRIED, why, blocks=True)
    return None


def _tried(check: Check[S], subject: S) -> Finding:
    verdicts: list[Verdict] = []
    deadline = Deadline(check.seconds)

    def run() -> None:
        try:
            verdicts.append(check.trial(subject, deadline))
        except VmconnectError as error:
            verdicts.append(broken(error.message, error.hint))
        except Exception as error:  # noqa: BLE001 (the other checks are worth having)
            verdicts.append(broken(f"internal error: {error!r}", "please report it"))

    started = time.monotonic()
    thread = threading.Thread(
        target=contextvars.copy_context().run,
        args=(run,),
        name=f"vmconnect doctor: {check.name}",
        daemon=True,
    )
    thread.start()
    thread.join(check.seconds + _GRACE_SECONDS)
    verdict = (
        verdicts[0]
        if verdicts
        else broken(
            f"it did not come back within {check.seconds + _GRACE_SECONDS:g} s",
            "something of this host hangs: a file system, a name service, a driver",
        )
    )
    ill = verdict.outcome in {Outcome.BROKEN, Outcome.WARNING}
    return Finding(
        check.name,
        check.tries,
        verdict.outcome,
        verdict.account,
        verdict.remedy or (check.remedy if ill else None),
        time.monotonic() - started,
        verdict.blocks,
    )
