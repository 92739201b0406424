"""Real hypervisors for the tests to ask."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, ConnectionLostError
from vmconnect.hypervisor import QmpClient
from vmconnect.streams import Unix


def soon(seconds: float = 60.0) -> Deadline:
    """A deadline that is met unless something hangs."""
    return Deadline(seconds)


@contextlib.contextmanager
def qemu(
    directory: Path, stem: str, *options: str, stopped: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """A real QEMU with no guest in it; unless it is stopped, its firmware runs."""
    path = directory / f"{stem}.qmp"
    argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg"]
    argv += ["-S"] if stopped else []
    argv += ["-qmp", f"unix:{path},server=on,wait=off", *options]
    with (directory / f"{stem}.out").open("wb") as output:
        process = subprocess.Popen(argv, stdout=output)
    try:
        wait_for_monitor(path, process)
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for_monitor(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = soon()
    while True:
        deadline.check("waiting for QEMU")
        assert process.poll() is None
        # Between bind and listen the socket is there, and refuses.
        with contextlib.suppress(ConnectError, ConnectionLostError):
            QmpClient.connect(Unix(str(path)), deadline).close()
            return


def qcow2(path: Path, size: str = "16M") -> Path:
    """An empty disk image."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    return path
