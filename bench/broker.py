"""``vmconnect exec`` beside ssh, as whole processes: with the broker, and without; and its cost.

One run, one guest, one user-space vsock device; the contenders take turns. ::

    python -m bench.broker [--rounds N] [--sessions N] [--seconds S] [--plot FILE.png]

The sessions whose memory and processor time are measured are real ones, with that many users'
logins to the one guest's SSH server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.guest import NAME, VMCONNECT, Figure, Peers, plot, run, table, timed
from vmconnect.broker import wire
from vmconnect.broker.wire import socket_path
from vmconnect.cli.progress import TerminalProgress
from vmconnect.demo import DemoMachine, build
from vmconnect.direct import Guest
from vmconnect.session import connect

TICKS = os.sysconf("SC_CLK_TCK")


def ours(*options: str) -> list[str]:
    """Return the argv of our command."""
    return [VMCONNECT, "exec", *options, NAME, "true"]


def stop_broker() -> None:
    """End the broker, and wait until it has."""
    run([VMCONNECT, "sessions", "stop"])
    while Path(socket_path()).exists():
        time.sleep(0.01)


def start_broker() -> None:
    """Have a command start one, and wait until it answers and has a session."""
    run(ours())
    while not Path(socket_path()).exists():
        time.sleep(0.01)
    run(ours())


def in_turns(number: int, what: str, contenders: dict[str, Callable[[], float]]) -> list[Figure]:
    """Let each contender warm up once and then take turns, each round in another order."""
    values: dict[str, list[float]] = {who: [] for who in contenders}
    order = list(contenders)
    for who in order:
        contenders[who]()
    for _round in range(number):
        for who in order:
            values[who].append(contenders[who]())
        order.append(order.pop(0))
    return [Figure(what, "ms", who, values[who]) for who in contenders]


def warm(peers: Peers, guest: Guest, number: int) -> list[Figure]:
    """Measure commands on connections that others keep open."""
    start_broker()
    with peers.master():
        return in_turns(
            number,
            "warm command, whole process",
            {
                "vmconnect exec": timed(lambda: run(ours())),
                "Guest.run alone": timed(lambda: guest.run(["true"])),
                "ssh with ControlMaster": timed(lambda: run(peers.ssh("true", warm=True))),
            },
        )


def cold(peers: Peers, number: int) -> list[Figure]:
    """Measure commands that make their own connections."""
    start_broker()

    def without_session() -> float:
        run([VMCONNECT, "sessions", "close", "--all"])
        while json.loads(output([VMCONNECT, "sessions", "--json"])):
            time.sleep(0.01)
        return timed(lambda: run(ours()))()

    return in_turns(
        number,
        "first command, whole process",
        {
            "vmconnect exec --no-broker": timed(lambda: run(ours("--no-broker"))),
            "vmconnect exec, a broker without a session": without_session,
            "ssh": timed(lambda: run(peers.ssh("true"))),
        },
    )


def output(argv: list[str]) -> bytes:
    """Return what a command writes."""
    return subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


class Process:
    """What the kernel tells of a process (proc(5))."""

    def __init__(self, pid: int):
        self._path = Path(f"/proc/{pid}")

    @property
    def cpu_s(self) -> float:
        """Processor time so far, user and system, of all threads."""
        fields = (self._path / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def switches(self) -> int:
        """How often its threads have gone to sleep so far."""
        total = 0
        for status in self._path.glob("task/*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
        return total

    @property
    def own_kib(self) -> int:
        """Memory that nobody else has (USS)."""
        return sum(
            int(line.split()[1])
            for line in (self._path / "smaps_rollup").read_text().splitlines()
            if line.startswith("Private_")
        )


def broker_process() -> Process:
    """Return the broker, as its socket tells who listens."""
    connection = wire.connect(5.0)
    assert connection is not None
    pid = wire.peer(connection)[0]
    connection.close()
    return Process(pid)


def idle_sessions(machine: DemoMachine, directory: Path, count: int, seconds: float) -> str:
    """Open that many sessions, let them be, and return what they cost."""
    stop_broker()
    start_broker()
    broker = broker_process()
    before = broker.own_kib
    for number in range(count):
        # Another key file is another session, though it is the same key.
        key = directory / f"key-{number}"
        key.symlink_to(machine.client_key)
        run(ours("-i", str(key)))
    assert len(json.loads(output([VMCONNECT, "sessions", "--json"]))) == count + 1
    time.sleep(2)
    each = (broker.own_kib - before) / count
    cpu, switches = broker.cpu_s, broker.switches
    time.sleep(seconds)
    cpu, switches = broker.cpu_s - cpu, broker.switches - switches
    return (
        f"{count} sessions, idle for {seconds:g} s: {cpu:.2f} s of processor time, "
        f"{switches} wake-ups; {each:.0f} KiB each beside the broker's own {before / 1024:.1f} MiB"
    )


def main() -> None:
    """Boot the guest, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    idle = ""
    with TerminalProgress() as progress, rooms_of_our_own() as directory:
        image = build(progress)
        progress.step("Booting the guest")
        # An SSH server for each session takes some memory in the guest.
        memory = 256 + 4 * arguments.sessions
        with DemoMachine.start(NAME, image=image, progress=progress, memory_mib=memory) as machine:
            try:
                peers = Peers(machine, image, directory)
                progress.step("Warm commands")
                with connect(NAME) as session:
                    guest = session.guest(timeout=300, wait=True)
                    figures += warm(peers, guest, arguments.rounds)
                progress.step("First commands")
                figures += cold(peers, max(5, arguments.rounds // 2))
                if arguments.sessions:
                    progress.step(f"{arguments.sessions} sessions")
                    idle = idle_sessions(machine, directory, arguments.sessions, arguments.seconds)
            finally:
                stop_broker()
    print(table(figures))
    print(idle)
    if arguments.json:
        rows = [{**vars(figure), "median": figure.median} for figure in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        plot(figures, arguments.plot)


@contextlib.contextmanager
def rooms_of_our_own() -> Iterator[Path]:
    """Keep the measured broker apart from the user's own, and give a directory."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        # Compiled modules are kept, as they are wherever something is installed.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            os.environ[variable] = name
        yield Path(name)


if __name__ == "__main__":
    main()
