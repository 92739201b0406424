"""``vmconnect jobs``: commands that run in a guest in the background."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.quantity import amount, duration
from vmconnect.cli.standard import OwnStandard
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable, say
from vmconnect.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmconnect.direct.job import Job, Jobs
    from vmconnect.direct.job_status import JobStatus

__all__ = ["arrange", "configure", "run"]

_HEADS = ("JOB", "STATE", "CODE", "TIME", "STDOUT", "STDERR", "COMMAND")
_COMMAND_CHARACTERS = 60
_LOST = 255


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "vmconnect exec --detach starts a job. It outlives the connection, vmconnect and this "
        "host; its output and exit code are kept in the guest, in a private directory of its "
        "user, until it is forgotten: 64 MiB of each output, what is more is dropped. vmconnect "
        "jobs TARGET is vmconnect jobs list TARGET."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    each = _action(actions, "list", "list the jobs", _list, named=False)
    each.add_argument("--json", action="store_true", help="print a JSON array of objects")
    each = _action(actions, "show", "tell of one job", _show)
    each.add_argument("--json", action="store_true", help="print a JSON object")
    each = _action(actions, "output", "print what a job has written so far", _output)
    each.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    summary = "wait for a job, and print what it has written; its exit code is ours"
    _add_timeout(_action(actions, "collect", summary, _collect))
    summary = "wait for a job; its exit code is ours"
    _add_timeout(_action(actions, "wait", summary, _wait))
    each = _action(actions, "kill", "end a job, and all that it has started", _kill)
    each.add_argument(
        "-s", "--signal", metavar="NAME", help="send it this signal, and nothing else"
    )
    each = _action(actions, "forget", "remove what is kept of jobs that have ended", _forget, "*")
    each.add_argument("--ended", action="store_true", help="of all that have")


def arrange(arguments: list[str]) -> list[str]:
    """Let ``jobs TARGET`` be ``jobs list TARGET``."""
    place = arguments.index("jobs") + 1
    first = next(iter(arguments[place:]), "-h")
    if first in {*_ACTIONS, "-h", "--help"}:
        return arguments
    return [*arguments[:place], "list", *arguments[place:]]


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked with a guest's jobs, and return the exit code."""
    session, guest = open_guest(arguments)
    with session:
        act: Callable[[Jobs, argparse.Namespace], int] = arguments.act
        return act(guest.jobs(arguments.as_user), arguments)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    act: Callable[[Jobs, argparse.Namespace], int],
    number: str | None = None,
    *,
    named: bool = True,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=summary)
    parser.add_argument("target", metavar="TARGET", help="the machine")
    if named:
        parser.add_argument("job", metavar="JOB", nargs=number, help="the job's name")
    add_login_options(parser)
    parser.add_argument("-u", "--user", dest="as_user", metavar="USER", help="the jobs of USER")
    parser.set_defaults(act=act)
    return parser


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="wait no longer; the job runs on"
    )


def _list(jobs: Jobs, arguments: argparse.Namespace) -> int:
    found = jobs.list()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))  # noqa: T201
    else:
        print_table([_HEADS, *map(_row, found)])
    return 0


def _show(jobs: Jobs, arguments: argparse.Namespace) -> int:
    status = jobs.get(arguments.job).status()
    if arguments.json:
        print(json.dumps(dataclasses.asdict(status), indent=2))  # noqa: T201
    else:
        print_table([_HEADS, _row(status)])
        _warn(status)
    return 0


def _output(jobs: Jobs, arguments: argparse.Namespace) -> int:
    job = jobs.get(arguments.job)
    _print_output(job, follow=arguments.follow)
    _warn(job.status())
    return 0


def _wait(jobs: Jobs, arguments: argparse.Namespace) -> int:
    return _exit_code(jobs.get(arguments.job).wait(arguments.timeout))


def _collect(jobs: Jobs, arguments: argparse.Namespace) -> int:
    job = jobs.get(arguments.job)
    status = job.wait(arguments.timeout)
    _print_output(job, follow=False)
    _warn(status)
    return _exit_code(status)


def _kill(jobs: Jobs, arguments: argparse.Namespace) -> int:
    job = jobs.get(arguments.job)
    if arguments.signal is None:
        job.kill()
    elif not job.signal(arguments.signal):
        say(f"the job {job.name} does not run")
        return 1
    return 0


def _forget(jobs: Jobs, arguments: argparse.Namespace) -> int:
    if not arguments.job and not arguments.ended:
        raise TargetError("name a job, or say --ended")
    names = list(arguments.job)
    if arguments.ended:
        names += [each.name for each in jobs.list() if each.state != "running"]
    for name in dict.fromkeys(names):
        jobs.get(name).forget()
    return 0


_ACTIONS = frozenset(("list", "show", "output", "collect", "wait", "kill", "forget"))


def _print_output(job: Job, *, follow: bool) -> None:
    standard = OwnStandard()
    job.output(standard.output, standard.error_output, follow=follow)


def _exit_code(status: JobStatus) -> int:
    if status.state == "lost":
        say(f"the job {status.name} is lost: the guest has restarted, or it was killed")
    if status.timed_out:
        say(f"the job {status.name} was ended, as its time was over")
    return _LOST if status.exit_code is None else status.exit_code


def _warn(status: JobStatus) -> None:
    if status.truncated:
        say(f"the job {status.name} wrote more than is kept; the rest was dropped")


def _row(status: JobStatus) -> tuple[str, ...]:
    command = shlex.join(status.argv)
    if len(command) > _COMMAND_CHARACTERS:
        command = command[: _COMMAND_CHARACTERS - 3] + "..."
    took = "-"
    if status.started_at is not None and status.ended_at is not None:
        took = duration(max(0, status.ended_at - status.started_at))
    return (
        status.name,
        f"{status.state}, time over" if status.timed_out else status.state,
        "-" if status.exit_code is None else str(status.exit_code),
        took,
        amount(status.stdout_bytes),
        amount(status.stderr_bytes),
        printable(command),
    )
