"""How the tests call the doctor, and what they expect to hear."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vmconnect.doctor import CHAIN, Finding, Outcome, Patient, examine
from vmconnect.secret import Secret

__all__ = ["chart", "complaint", "outcomes"]


def chart(
    target: str | Path,
    *,
    user: str | None = None,
    identity_files: Sequence[Path] = (),
    password: str | None = None,
    seconds: float | None = None,
) -> dict[str, Finding]:
    """Return what the doctor finds, by link; ``seconds`` is for tests of what never answers."""
    checks = [
        check if seconds is None else replace(check, seconds=min(seconds, check.seconds))
        for check in CHAIN
    ]
    patient = Patient(str(target), user, identity_files, Secret.of(password))
    try:
        found = {finding.check: finding for finding in examine(checks, patient)}
    finally:
        patient.close()
    assert list(found) == [check.name for check in CHAIN]
    for finding in found.values():
        assert finding.account
        assert finding.outcome in {Outcome.OK, Outcome.NOT_TRIED} or finding.remedy
    return found


def outcomes(found: dict[str, Finding]) -> dict[str, str]:
    """Return the outcomes alone, as words."""
    return {name: finding.outcome.value for name, finding in found.items()}


def complaint(found: dict[str, Finding], *also: str) -> tuple[str, str, str]:
    """Return the one link that is broken: its name, what is said of it, and what mends it.

    What hangs on it must not have been tried; ``also`` are other links that may be broken.
    """
    ill = [name for name, finding in found.items() if finding.outcome is Outcome.BROKEN]
    assert [name for name in ill if name not in also] == ill[:1], outcomes(found)
    finding = found[ill[0]]
    broken = {ill[0]}
    for check in CHAIN:
        if broken & {*check.needs}:
            broken.add(check.name)
            assert found[check.name].outcome is Outcome.NOT_TRIED
    return ill[0], finding.account, finding.remedy or ""
