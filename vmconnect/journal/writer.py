"""Writing the user's own journal, as the settings have it.

It is off where ``$VMCONNECT_JOURNAL`` is 0, or where the settings say so::

    [journal]
    enabled = false         # $VMCONNECT_JOURNAL, where it is set, counts more
    arguments = true        # note all words of the commands that are run

A journal that cannot be written never fails what it tells of: there is one warning.
"""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Any

from vmconnect.errors import ResourceError, VmconnectError
from vmconnect.journal.entry import Entry
from vmconnect.journal.file import JournalFile
from vmconnect.settings import section

__all__ = ["command_words", "journal_is_on", "without_secrets", "write"]

_VARIABLE = "VMCONNECT_JOURNAL"
_PROGRAM_CHARACTERS = 200

# In an address: what stands between a user's name and the host; and parameters that are secrets.
_USER_PASSWORD = re.compile(r"(://[^/?#@:\s]*):[^/?#\s]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;#\s]*(?:pass|secret|token|key|auth)[^=&;#\s]*=)[^&;#\s]*", re.IGNORECASE
)


def write(
    what: str,
    *,
    machine: str,
    target: str,
    uuid: str | None,
    error: BaseException | None,
    seconds: float,
    details: dict[str, Any],
    sent: int | None = None,
    received: int | None = None,
) -> None:
    """Write an entry about what has just been done by this process; see `Entry`."""
    if not journal_is_on():
        return
    message = error.message if isinstance(error, VmconnectError) else None
    entry = Entry(
        time=_now(),
        what=what,
        machine=machine,
        target=without_secrets(target),
        uuid=uuid,
        user=_user_name(os.getuid()),
        uid=os.getuid(),
        sudo_user=os.environ.get("SUDO_USER") or None,
        pid=os.getpid(),
        error=type(error).__name__ if error else None,
        # Of a foreign error's words nobody knows what is in them.
        message=None if message is None else without_secrets(message),
        seconds=seconds,
        sent=sent,
        received=received,
        details={key: each for key, each in details.items() if each is not None},
    )
    try:
        JournalFile().append(entry)
    except ResourceError as trouble:
        _warn(str(trouble))


def command_words(argv: tuple[str, ...]) -> dict[str, Any]:
    """Return what is noted of a command: its program, and how many arguments it had.

    Passwords and tokens are often given as arguments, and a journal is kept for longer, and is
    shown to more people, than a guest's list of processes. So all words are noted only where the
    settings say so; and a program's name ends at the first blank, in case that somebody gave a
    whole command line for it.
    """
    if not argv or _settings().get("arguments") is True:
        return {"argv": list(argv)}
    program = (argv[0].split(maxsplit=1) or [""])[0]
    return {"program": program[:_PROGRAM_CHARACTERS], "arguments": len(argv) - 1}


def without_secrets(text: str) -> str:
    """Return a text without the passwords in its addresses."""
    return _SECRET_PARAMETER.sub(r"\1…", _USER_PASSWORD.sub(r"\1@", text))


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{clock}.{nanoseconds // 10**6:03}Z"


@functools.lru_cache(maxsize=4)
def _user_name(uid: int) -> str | None:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def journal_is_on() -> bool:
    """Return whether entries are written at all."""
    switch = os.environ.get(_VARIABLE)
    return switch != "0" if switch else _settings().get("enabled") is not False


def _settings() -> dict[str, Any]:
    try:
        return section("journal")
    except ResourceError as trouble:
        _warn(str(trouble))
        return {}


@functools.cache  # Once each: what cannot be written now most likely cannot be later either.
def _warn(trouble: str) -> None:
    import logging

    logging.getLogger("vmconnect.journal").warning("vmconnect: %s; the work goes on", trouble)
