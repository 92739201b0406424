"""Finding machines among many: by name, UUID or shell pattern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmconnect.errors import AmbiguousTargetError, MachineNotFoundError
from vmconnect.hypervisor.machine import Machine

__all__ = ["choose", "is_meant", "is_pattern", "matching", "uuid_digits"]

_SHOWN = 10


def is_pattern(text: str) -> bool:
    """Return whether ``text`` has characters of a shell pattern (fnmatch)."""
    return not set(text).isdisjoint("*?[")


def matching(machines: Iterable[Machine], text: str) -> list[Machine]:
    """Return the machines that ``text`` means.

    These are the ones with exactly that name; else the one with that UUID, in any spelling; else
    those whose names match it as a shell pattern.
    """
    known = list(machines)
    if named := [machine for machine in known if machine.name == text]:
        return named
    digits = uuid_digits(text)
    if digits and (of_it := [each for each in known if digits == uuid_digits(each.uuid or "")]):
        return of_it
    if not is_pattern(text):
        return []
    import fnmatch
    import re

    pattern = re.compile(fnmatch.translate(text))
    return [machine for machine in known if pattern.match(machine.name)]


def is_meant(text: str, name: str, uuid: str | None) -> bool:
    """Return whether ``text`` may mean the machine of that name and UUID; see `matching`."""
    if name == text:
        return True
    digits = uuid_digits(text)
    if digits and digits == uuid_digits(uuid or ""):
        return True
    if not is_pattern(text):
        return False
    import fnmatch

    return fnmatch.fnmatchcase(name, text)


def choose(found: Sequence[Machine], text: str, known: Iterable[Machine]) -> Machine:
    """Return the only machine in ``found``.

    Raises AmbiguousTargetError where there are several, and MachineNotFoundError where there is
    none, with candidates from ``known``.
    """
    if len(found) == 1:
        return found[0]
    if found:
        what = "match" if is_pattern(text) else "are called"
        targets = [machine.target for machine in found]
        raise AmbiguousTargetError(
            f"{len(found)} machines {what} {text!r}", hint="say which: " + _listed(targets)
        )
    import difflib  # Only a mistyped name needs it.

    names = sorted({machine.name for machine in known})
    near = difflib.get_close_matches(text, names, n=5, cutoff=0.5) or names
    raise MachineNotFoundError(
        f"no machine is called {text!r}",
        hint="known: " + _listed(near) if near else "none is running here: vmconnect demo",
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def uuid_digits(text: str) -> str | None:
    """Return the 32 digits of a UUID, however it is written; None if it is none."""
    digits = text.lower().replace("-", "")
    return digits if len(digits) == 32 and not digits.strip("0123456789abcdef") else None
