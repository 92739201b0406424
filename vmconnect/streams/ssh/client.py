"""The user's ssh program.

``$VMCONNECT_SSH`` is its command, with options if one likes: ``ssh -F /etc/vms/ssh_config``.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    DeadlineError,
    HostKeyChangedError,
    HostKeyUnknownError,
    MissingDependencyError,
    ResourceError,
    TargetError,
    VmconnectError,
)
from vmconnect.streams.ssh.host import SshHost
from vmconnect.terminal import someone_to_ask

__all__ = ["command", "settings", "start_master", "version"]

_VARIABLE = "VMCONNECT_SSH"
_OUTPUT_BYTES = 1 << 18
_REASON_CHARACTERS = 300
# How long a connection that nobody uses any more is kept (seconds).
_PERSIST = 60
# A connection whose other end does not answer for this long, three times, is over (seconds).
_ALIVE = 15
# How long a host has to answer before anybody is asked for anything (seconds).
_PATIENCE = 30

# What was asked once.
_versions: dict[tuple[str, ...], tuple[int, int]] = {}


def command() -> list[str]:
    """Return how ssh is started; raises TargetError if the variable cannot be read."""
    try:
        return shlex.split(os.environ.get(_VARIABLE, "")) or ["ssh"]
    except ValueError as error:
        raise TargetError(f"${_VARIABLE} is no command: {error}") from error


def settings(host: SshHost, deadline: Deadline) -> dict[str, str]:
    """Return what ssh_config says for the host, by keywords in lower case (``ssh -G``)."""
    code, out, err = _run([*command(), "-G", *_destination(host)], host, deadline)
    if code:
        raise _failed(host, err)
    pairs = (line.partition(" ") for line in out.splitlines())
    return {key.lower(): value for key, _, value in pairs}


def version(deadline: Deadline) -> tuple[int, int]:
    """Return OpenSSH's version, (0, 0) if it is none."""
    program = tuple(command())
    if program not in _versions:
        _code, _out, err = _run([*program, "-V"], None, deadline)
        match = re.match(r"OpenSSH_(\d{1,3})\.(\d{1,3})", err)
        _versions[program] = (int(match[1]), int(match[2])) if match else (0, 0)
    return _versions[program]


def start_master(host: SshHost, path: str, known: dict[str, str], deadline: Deadline) -> None:
    """Log in, and leave an ssh in the background that serves the control socket ``path``.

    ``known`` are its `settings`. It ends by itself when nobody has used it for a minute. Whoever
    is at the terminal is asked only if it does not do without. Raises ConnectError, TrustError,
    AuthenticationError, DeadlineError.
    """
    options = {
        "ControlMaster": "yes",
        # Percent signs are ssh's own.
        "ControlPath": path.replace("%", "%%"),
        "ControlPersist": str(_PERSIST),
        "LogLevel": "ERROR",
        # What the user has for a shell on that host is not wanted here.
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
    }
    if known.get("serveraliveinterval", "0") == "0":
        options["ServerAliveInterval"] = str(_ALIVE)
    try:
        # Out of the terminal's session: what is between here and the host (ProxyCommand,
        # ProxyJump) would die of its Ctrl-C, with whatever else goes through the connection.
        _log_in(host, options | {"BatchMode": "yes"}, deadline, detached=True)
    except (AuthenticationError, HostKeyUnknownError):
        if not someone_to_ask():
            raise
        _log_in(host, options, deadline)


def _log_in(
    host: SshHost, options: dict[str, str], deadline: Deadline, *, detached: bool = False
) -> None:
    left = deadline.remaining(at_most=_PATIENCE)
    options["ConnectTimeout"] = str(max(1, math.ceil(left or 0)))
    arguments = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    arguments += ["-f", "-N", *_destination(host)]
    code, _out, err = _run([*command(), *arguments], host, deadline, detached=detached)
    if code:
        raise _failed(host, err)


def _destination(host: SshHost) -> list[str]:
    user = ["-l", host.user] if host.user else []
    port = ["-p", str(host.port)] if host.port else []
    return [*user, *port, "--", host.name]


def _run(
    arguments: Sequence[str], host: SshHost | None, deadline: Deadline, *, detached: bool = False
) -> tuple[int, str, str]:
    """Run ssh and return its exit code and the beginning of what it says; kill it if it is late.

    It says so to files: one that goes on in the background may keep its end of a pipe.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=detached,
            )
        except FileNotFoundError as error:
            raise MissingDependencyError(
                f"{arguments[0]} is not installed", hint="apt install openssh-client"
            ) from error
        except OSError as error:
            raise ResourceError(f"cannot start {arguments[0]}: {error.strerror}") from error
        try:
            code = process.wait(deadline.remaining())
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(
                f"ssh has not logged in to {host} in time", hint=f"try it by hand: ssh {host}"
            ) from error
        finally:
            if process.poll() is None:
                _end(process, whole_group=detached)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(_OUTPUT_BYTES).decode(errors="replace"))
        return code, texts[0], texts[1]


def _end(process: subprocess.Popen[bytes], *, whole_group: bool) -> None:
    """Kill an ssh that is late, with what it has started to get to the host."""
    with contextlib.suppress(ProcessLookupError):
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # Its group is ours.
    process.wait()


def _failed(host: SshHost, said: str) -> VmconnectError:
    """Return what ssh says on standard error as an error of ours."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "ssh ends without a reason"
    reason = "".join(c if c.isprintable() else "?" for c in last)[:_REASON_CHARACTERS]
    by_hand = f"try it by hand: ssh {host}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return HostKeyChangedError(
            f"the host key of {host} has changed", hint=f"{by_hand}; ssh tells which line is old"
        )
    if "Host key verification failed" in said or "host key is known for" in said:
        return HostKeyUnknownError(
            f"the host key of {host} is not known", hint=f"{by_hand}, and compare the key"
        )
    if "Permission denied (" in said or "Too many authentication failures" in said:
        hint = by_hand if someone_to_ask() else f"{by_hand}; here nobody can be asked"
        return AuthenticationError(f"{host} refuses the login: {reason}", hint=hint)
    return ConnectError(f"cannot reach {host}: {reason}", hint=by_hand)
