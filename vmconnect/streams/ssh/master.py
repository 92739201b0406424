"""One connection to each host, shared by all streams there: ssh's ControlMaster.

The user's own is used where one runs. Otherwise one of ours is started, at a control socket in the
runtime directory, for all processes of the user; it ends a minute after its last stream.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, DeadlineError, ResourceError
from vmconnect.paths import runtime_directory
from vmconnect.streams.endpoint import Unix
from vmconnect.streams.sockets import SocketStream
from vmconnect.streams.ssh import client
from vmconnect.streams.ssh.host import SshHost
from vmconnect.streams.ssh.mux import MuxClient
from vmconnect.terminal import someone_to_ask

__all__ = ["attach", "control_path", "is_alive", "log_in"]

# sun_path holds 107 bytes (unix(7)), and ssh binds to a longer name first: a dot, 16 characters.
_MOST_PATH_BYTES = 107 - 17
_POLL_SECONDS = 0.05
# A master that is well greets at once.
_ATTACH_SECONDS = 5.0

# Where the last connection to a host, by that command, was found.
_found: dict[tuple[str, ...], str] = {}


def attach(host: SshHost, deadline: Deadline) -> tuple[MuxClient, str]:
    """Return a client of the host's master, and where that is; log in if there is none.

    Raises what `client.start_master` does.
    """
    who = (*client.command(), str(host))
    path = _found.get(who)
    if path and (mux := _connect(path, deadline)):
        return mux, path
    ours = control_path(host)
    with _locked(ours, deadline):
        known = client.settings(host, deadline)
        theirs = known.get("controlpath", "none")
        for path in (theirs, ours):
            if path != "none" and (mux := _connect(path, deadline)):
                _found[who] = path
                return mux, path
        with contextlib.suppress(FileNotFoundError):
            Path(ours).unlink()  # Of one that was killed; ssh would not share past it.
        client.start_master(host, ours, known, deadline)
        mux = _connect(ours, deadline)
    if mux is None:
        raise ConnectError(f"ssh has logged in to {host}, and does not share the connection")
    _found[who] = ours
    return mux, ours


def log_in(host: SshHost) -> None:
    """Log in now, with all the time that the person at the terminal takes to answer ssh.

    Where there is nobody nothing happens: whoever dials logs in.
    """
    if someone_to_ask():
        attach(host, Deadline(None))[0].close()


def is_alive(path: str) -> bool:
    """Return whether a master serves the control socket at ``path``."""
    try:
        mux = _connect(path, Deadline(_ATTACH_SECONDS))
    except DeadlineError:
        return False
    if mux is not None:
        mux.close()
    return mux is not None


def control_path(host: SshHost) -> str:
    """Return where our own master for the host listens; raises ResourceError if it cannot."""
    name = hashlib.sha256(f"{client.command()} {host}".encode()).hexdigest()[:16]
    path = str(runtime_directory() / f"ssh-{name}")
    if len(os.fsencode(path)) > _MOST_PATH_BYTES or "${" in path:
        raise ResourceError(
            f"ssh cannot have a control socket at {path}", hint="a shorter XDG_RUNTIME_DIR"
        )
    return path


def _connect(path: str, deadline: Deadline) -> MuxClient | None:
    """Return a client of the master at ``path``; None if there is none."""
    from vmconnect.streams.dial import dial

    try:
        deadline = deadline.sooner(_ATTACH_SECONDS)
        stream = dial(Unix(path), deadline)
        assert isinstance(stream, SocketStream)  # noqa: S101 (a UNIX socket's)
        return MuxClient(stream, deadline)
    except ConnectError:
        return None


@contextlib.contextmanager
def _locked(path: str, deadline: Deadline) -> Iterator[None]:
    """Let one process, and one thread, log in at a time; raises DeadlineError, ResourceError."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(f"cannot write {path}.lock: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.passed:
                    raise DeadlineError("another vmconnect is still logging in there") from None
                time.sleep(deadline.remaining(at_most=_POLL_SECONDS) or 0)
        yield
    finally:
        os.close(descriptor)
