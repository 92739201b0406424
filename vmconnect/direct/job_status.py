"""What a guest says of a background job."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from vmconnect.errors import GuestError

__all__ = ["JobState", "JobStatus", "shown", "statuses"]

JobState = Literal["running", "ended", "lost"]
"""``lost``: neither, because the guest has restarted, or somebody has killed what watched it."""

JOB_NAME = re.compile(r"[a-z0-9]{1,32}\Z", re.ASCII)

_STATES: tuple[JobState, ...] = ("running", "ended", "lost")
_FIELDS = 10
_DIGITS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_SHOWN_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A background job, as its guest tells of it.

    ``exit_code`` is as a shell has it, 128 + N when signal N ended it, and None until then.
    ``started_at`` and ``ended_at`` are seconds since 1970 by the guest's clock. ``stdout_bytes``
    and ``stderr_bytes`` are kept there; ``truncated`` says that it wrote more than is kept,
    ``timed_out`` that its time was over.
    """

    name: str
    state: JobState
    argv: tuple[str, ...]
    exit_code: int | None
    started_at: int | None
    ended_at: int | None
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    timed_out: bool


def shown(argv: tuple[str, ...]) -> str:
    """Return a command as one line of ASCII, to be kept with its job; a long one is cut."""
    text = json.dumps(argv)
    if len(text) > _SHOWN_CHARACTERS:
        text = json.dumps([*(word[:80] for word in argv[:16]), "..."])
    return text


def statuses(data: bytes) -> list[JobStatus]:
    """Read what `jobs.sh` prints, one line a job; raises GuestError for anything else."""
    return [_status(line) for line in data.decode("utf-8", "replace").split("\n") if line]


def _status(line: str) -> JobStatus:
    fields = line.split(" ", _FIELDS - 1)
    if len(fields) != _FIELDS or fields[1] not in _STATES or not JOB_NAME.match(fields[0]):
        raise GuestError(f"the guest says of a job: {line[:80]!r}")
    name, state, code, begun, ended, out, err, cut, late, command = fields
    return JobStatus(
        name=name,
        state=next(each for each in _STATES if each == state),
        argv=_argv(command),
        exit_code=_number(code),
        started_at=_number(begun),
        ended_at=_number(ended),
        stdout_bytes=_number(out) or 0,
        stderr_bytes=_number(err) or 0,
        truncated=cut == "1",
        timed_out=late == "1",
    )


def _number(text: str) -> int | None:
    return int(text) if _DIGITS.match(text) else None


def _argv(text: str) -> tuple[str, ...]:
    try:
        words = json.loads(text[: 16 * _SHOWN_CHARACTERS])
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, words)) if isinstance(words, list) else ()
