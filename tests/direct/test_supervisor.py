"""What runs a background job in a guest, run here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmconnect.deadline import Deadline
from vmconnect.direct.command import script

SHELLS = [each for each in ("dash", "bash") if Path("/bin", each).exists()]
ROUNDS = 300
AT_ONCE = 8
WAIT = 30.0


def supervise(shell: str, job: Path, seconds: int) -> None:
    job.mkdir()
    (job / "in").touch()
    for name in ("out.pipe", "err.pipe"):
        os.mkfifo(job / name)
    words = [str(job), job.name, "100", str(seconds), script("sweep.sh"), "022", "true"]
    text = [shell, "-c", script("supervisor.sh"), "vmconnect", *words]
    subprocess.run(text, check=True, stderr=subprocess.DEVNULL)
    assert (job / "status").read_text().split()[0] == "0"


def running(words: str) -> list[str]:
    """Return the processes whose command lines have these words in them."""
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, check=False, text=True)
    return found.stdout.split()


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline(WAIT)
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.05)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_job_that_ends_at_once_leaves_no_timer(shell: str, tmp_path: Path) -> None:
    # A number that no other process sleeps for. When exactly a timer is told to end is up to the
    # system, so there are many.
    seconds = 10**8 + os.getpid()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [tmp_path / str(number) for number in range(ROUNDS)]
        assert len(list(pool.map(lambda job: supervise(shell, job, seconds), jobs))) == ROUNDS
    until(lambda: not running(str(tmp_path)))  # None of those who would end a timer is left.
    until(lambda: not running(f"sleep {seconds}"))
