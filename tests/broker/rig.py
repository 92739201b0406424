"""A broker of the tests' own, started as anybody's is, and looked at from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmconnect.broker import wire
from vmconnect.deadline import Deadline

WAIT = 60.0
COMMAND = Path(sys.executable).with_name("vmconnect")
NAME = "shared"
"""The machine's that all tests share."""
Outcome = tuple[int, bytes, bytes]


class Rig:
    """Runs commands with and without the broker of one environment."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = {**environment}
        self.environment.pop("VMCONNECT_BROKER", None)

    def with_(self, **variables: str) -> Rig:
        """Return a rig with other variables."""
        return Rig({**self.environment, **variables})

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command; the broker may take part."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [str(COMMAND), *words],
            # Unbuffered: who reads a line has taken no more than that.
            bufsize=0,
            **{"env": self.environment, **streams, **options},
        )

    def run(self, *words: str, stdin: bytes = b"", **options: Any) -> Outcome:
        """Run a command; the broker may take part."""
        process = self.start(*words, **options)
        out, err = process.communicate(stdin, timeout=WAIT)
        return process.returncode, out, err

    def alone(self, *words: str, stdin: bytes = b"", **options: Any) -> Outcome:
        """Run a command with no broker."""
        environment = {**self.environment, "VMCONNECT_BROKER": "0"}
        return self.run(*words, stdin=stdin, **{"env": environment, **options})

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What the broker has; nothing where there is none."""
        code, out, err = self.run("sessions", "--json")
        assert (code, err) == (0, b"")
        sessions: list[dict[str, Any]] = json.loads(out)
        return sessions

    @property
    def done(self) -> int:
        """How many commands the broker has run."""
        return sum(session["done"] for session in self.sessions)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = self.environment["XDG_RUNTIME_DIR"]
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before

    @property
    def pid(self) -> int | None:
        """The broker's process; None where there is none."""
        with self._here():
            connection = wire.connect(WAIT)
        if connection is None:
            return None
        try:
            return wire.peer(connection)[0]
        finally:
            connection.close()

    def wait_started(self) -> int:
        """Wait until there is a broker, and return its process."""
        deadline = Deadline(WAIT)
        while (pid := self.pid) is None:
            deadline.check("waiting for a broker")
            time.sleep(0.02)
        return pid

    def warm(self, *words: str) -> int:
        """See to it that there is a broker with a session that ``words`` use; return its pid."""
        deadline = Deadline(WAIT)
        while True:
            before = self.done
            code, _out, err = self.run("exec", *words)
            assert code == 0, err
            if self.done > before:
                return self.wait_started()
            deadline.check("waiting for a broker that runs commands")
            self.wait_started()

    def stop(self) -> None:
        """End the broker, and wait until it has ended."""
        pid = self.pid
        if pid is None:
            return
        assert self.run("sessions", "stop")[0] == 0
        wait_gone(pid)


def started(rig: Rig, script: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a shell script in the guest, and return when it has said a line."""
    process = rig.start("exec", NAME, "--", "sh", "-c", f"echo up; {script}", **options)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def wait_gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = Deadline(WAIT)
    while is_alive(pid):
        deadline.check(f"waiting for process {pid} to end")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether there is such a process, and it is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def empty_rig(**variables: str) -> Iterator[Rig]:
    """Give a rig in rooms of its own, with no machine in them."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        rig = Rig(
            {
                **os.environ,
                "XDG_RUNTIME_DIR": name,
                "XDG_STATE_HOME": f"{name}/state",
                "VMCONNECT_HYPERVISORS": f"{name}/vmconnect",
                **variables,
            }
        )
        Path(name, "vmconnect").mkdir(mode=0o700)
        try:
            yield rig
        finally:
            rig.stop()
