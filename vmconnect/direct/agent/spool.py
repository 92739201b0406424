"""A program whose input and outputs are files of the guest's, as its agent keeps but 16 MiB.

The files are in a directory of their own, which only root can look into, and which is removed at
the end. What the program writes is read as it comes; how much of it waits there is the guest's disk
space alone, so that nothing grows here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.errand import checked
from vmconnect.direct.agent.file import GuestFile
from vmconnect.direct.agent.program import Program, Status
from vmconnect.errors import AgentError, DeadlineError, GuestError, UnsupportedError, VmconnectError

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["run_spooled"]

Sink = Callable[[bytes], object]

_MAKE = """
umask 077
for room in "${TMPDIR:-}" /var/tmp /tmp; do
    [ -n "$room" ] && [ -w "$room" ] || continue
    made=$(mktemp -d "$room/vmconnect.XXXXXXXX") || exit
    : >"$made/in" && : >"$made/out" && : >"$made/err" || exit
    printf %s "$made"
    exit
done
echo 'no directory for temporary files' >&2
exit 1
"""
_RUN = 'room=$1; shift; exec "$@" >"$room/out" 2>"$room/err"'
_RUN_FED = 'room=$1; shift; exec "$@" <"$room/in" >"$room/out" 2>"$room/err"'
_MADE = re.compile(r"/[!-~]{0,200}/vmconnect\.[A-Za-z0-9]{8}")
_TIDY_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
# One after the other, of a program that has ended.
_MOST_FAILURES = 6


def run_spooled(
    agent: GuestAgent,
    argv: Sequence[str],
    stdin: bytes | Iterable[bytes],
    sinks: tuple[Sink, Sink],
    deadline: Deadline,
    *,
    environment: Sequence[str] | None = None,
) -> Status:
    """Run ``argv``, hand what it writes to the sinks for stdout and stderr, return how it ended.

    Its input is there in whole before it starts: bytes go with the request that starts it, pieces
    of them by a file. Raises UnsupportedError, before it is started, where the agent permits no
    files.
    """
    with _room(agent, deadline) as room:
        script, given = _RUN, stdin
        if not isinstance(given, bytes):
            with GuestFile.open(agent, f"{room}/in", "r+b", deadline) as file:
                for data in given:
                    file.write(data, deadline)
            script, given = _RUN_FED, b""
        with (
            GuestFile.open(agent, f"{room}/out", "rb", deadline) as out,
            GuestFile.open(agent, f"{room}/err", "rb", deadline) as err,
        ):
            words = ["sh", "-c", script, "sh", room, *argv]
            program = Program.start(
                agent, words, deadline, stdin=given, environment=environment, capture=False
            )
            if isinstance(program, Status):
                return program
            program.argv = tuple(argv)
            with program.ended_on_error():
                return _followed(
                    program, (_Output(out, sinks[0]), _Output(err, sinks[1])), deadline
                )


class _Output:
    """One of the files that the program writes to, and who gets what is in it."""

    def __init__(self, file: GuestFile, sink: Sink):
        self.sink = sink
        self._file = file
        self._offset = 0
        self._lost = False

    def read(self, deadline: Deadline) -> bytes:
        """Return what has come, none if nothing has; what a lost reply had comes again."""
        soon = deadline.sooner(_ANSWER_SECONDS)
        if self._lost:
            self._file.seek(self._offset, timeout=soon)
        self._lost = True  # Until it is there: the agent itself is past it by then.
        data = self._file.read(timeout=soon)
        self._lost = False
        self._offset += len(data)
        return data


def _followed(program: Program, outputs: tuple[_Output, ...], deadline: Deadline) -> Status:
    """Hand on what comes until the program has ended and all is read."""
    status: Status | None = None
    failures = 0
    while True:
        idle = True
        for output in outputs:
            deadline.check(f"{program.argv[0]} wrote")
            try:
                data = output.read(deadline)
            except (DeadlineError, GuestError, UnsupportedError) as error:
                idle, failures = False, failures + 1
                # If the agent has forgotten the program, or is silent for long, that is told.
                status = status or program.poll(deadline)
                if not isinstance(error, DeadlineError) or failures > _MOST_FAILURES:
                    raise GuestError(
                        f"{program.argv[0]} ran; its output is lost: {error.message}",
                        machine=error.machine,
                    ) from error
                continue
            failures = 0
            if data:
                idle = False
                output.sink(data)
        if not idle:
            continue
        if status is not None:
            return status
        if (status := program.poll(deadline)) is None:
            program.pause(deadline)


@contextlib.contextmanager
def _room(agent: GuestAgent, deadline: Deadline) -> Iterator[str]:
    """Give the path of a directory that is there for a ``with`` block."""
    room = checked(agent, ["sh", "-c", _MAKE], deadline).decode("ascii", "replace")
    if not _MADE.fullmatch(room):
        raise AgentError("no path of a directory where it should be", machine=agent.machine)
    try:
        yield room
    finally:
        with contextlib.suppress(VmconnectError):
            checked(agent, ["rm", "-rf", "--", room], Deadline(_TIDY_SECONDS))
