"""Running a program through a guest's agent, in whichever way it can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.errand import checked
from vmconnect.direct.agent.program import Program, Status
from vmconnect.direct.agent.spool import run_spooled
from vmconnect.errors import GuestError, UnsupportedError

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["Sink", "run"]

Sink = Callable[[bytes], object]

# What goes with the request that starts the program; more of it goes by a file.
_STDIN_BYTES = 1 << 20
_KEPT_BYTES = 256 << 20
_SINK_HINT = "take the output with a sink"
_IN_DIRECTORY = 'cd -- "$1" && shift && exec "$@"'


def run(  # noqa: PLR0917 (those of `GuestAgent.run`)
    agent: GuestAgent,
    argv: Sequence[str],
    stdin: bytes | Iterable[bytes] | None,
    sinks: tuple[Sink | None, Sink | None],
    env: Mapping[str, str] | None,
    cwd: str | None,
    deadline: Deadline,
) -> tuple[Status, bytes, bytes]:
    """Run ``argv`` and return how it ended, and of its outputs what no sink took."""
    if not argv:
        raise UnsupportedError("there is no program to run", machine=agent.machine)
    words: Sequence[str] = argv
    if cwd is not None:
        if agent.is_windows(deadline):
            raise UnsupportedError(
                "its guest agent has no working directories on Windows",
                machine=agent.machine,
                hint="use PowerShell's Set-Location",
            )
        words = ["sh", "-c", _IN_DIRECTORY, "sh", cwd, *argv]
    environment = None if env is None else _environment(agent, env, deadline)
    first, rest = _divided(stdin)
    streamed = any(sinks) or rest is not None
    if streamed and not agent.is_windows(deadline):
        kept = bytearray(), bytearray()
        out, err = (sink or _keeper(own, agent) for sink, own in zip(sinks, kept, strict=True))
        source = first if rest is None else chain([first], rest)
        try:
            status = run_spooled(
                agent, words, source, (out, err), deadline, environment=environment
            )
        except UnsupportedError:
            if rest is not None:
                raise
        else:
            return status, bytes(kept[0]), bytes(kept[1])
    if rest is not None:
        raise UnsupportedError(
            f"on Windows a program takes no more than {_STDIN_BYTES >> 20} MiB of input",
            machine=agent.machine,
        )
    program = Program.start(agent, words, deadline, stdin=first, environment=environment)
    status = program.wait(deadline) if isinstance(program, Program) else program
    if status.truncated:
        raise GuestError(
            f"{argv[0]} wrote more than the guest agent keeps",
            machine=agent.machine,
            hint=_SINK_HINT,
        )
    left = []
    for sink, data in zip(sinks, (status.stdout, status.stderr), strict=True):
        left.append(b"" if sink else data)
        if sink and data:
            sink(data)
    return status, left[0], left[1]


def _keeper(kept: bytearray, agent: GuestAgent) -> Sink:
    def keep(data: bytes) -> None:
        if len(kept) + len(data) > _KEPT_BYTES:
            raise GuestError(
                f"it wrote more than {_KEPT_BYTES >> 20} MiB",
                machine=agent.machine,
                hint=_SINK_HINT,
            )
        kept.extend(data)

    return keep


def _divided(stdin: bytes | Iterable[bytes] | None) -> tuple[bytes, Iterable[bytes] | None]:
    """Return what of the input goes with the request, and the rest, None if that is all."""
    if stdin is None or isinstance(stdin, bytes):
        stdin = stdin or b""
        return (stdin, None) if len(stdin) <= _STDIN_BYTES else (b"", (stdin,))
    pieces: Iterator[bytes] = iter(stdin)
    first = bytearray()
    for piece in pieces:
        first += piece
        if len(first) > _STDIN_BYTES:
            return bytes(first), pieces
    return bytes(first), None


def _environment(agent: GuestAgent, env: Mapping[str, str], deadline: Deadline) -> list[str]:
    """Return all of the agent's environment with ``env`` in it, as the agent takes all or none.

    None of it is on a command line, where others in the guest would see it.
    """
    if agent.is_windows(deadline):
        lines = checked(agent, ["cmd.exe", "/d", "/c", "set"], deadline).splitlines()
    else:
        lines = checked(agent, ["env", "-0"], deadline).split(b"\0")
    own = dict(line.partition(b"=")[::2] for line in lines if b"=" in line)
    known = {os.fsdecode(name): os.fsdecode(value) for name, value in own.items()}
    # What is no Unicode cannot be sent.
    known = {name: value for name, value in known.items() if (name + value).isprintable()}
    return [f"{name}={value}" for name, value in {**known, **env}.items()]
