"""The guest channel beside OpenSSH: first command, warm commands, bytes each way.

One run, one guest, one user-space vsock device; peers take turns. Prints a table, and writes a
plot and JSON where asked. ::

    python bench/guest.py [--rounds N] [--megabytes N] [--json FILE] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmconnect.cli.progress import TerminalProgress
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage, DemoMachine, build
from vmconnect.direct import Guest
from vmconnect.direct.library import paramiko
from vmconnect.retry import Retry
from vmconnect.session import connect
from vmconnect.streams import HybridVsock, Stream, dial

NAME = "bench"
VMCONNECT = str(Path(sys.executable).with_name("vmconnect"))
RAW_IN, RAW_OUT = 5001, 5002
PEERS = {"ssh", "ssh, curve25519-sha256", "scp", "ssh with ControlMaster", "bare paramiko"}
REMOTE = "/tmp"  # noqa: S108 (the guest's)

# OpenSSH reaches the guest through this: it makes the hybrid vsock handshake, hands the socket
# over (ProxyUseFdpass) and is gone, so that nothing stands between ssh and the device.
PROXY = """
import array, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"CONNECT 22\\n")
while s.recv(1) != b"\\n":
    pass
out = socket.socket(fileno=1)
out.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
"""


@dataclass(frozen=True)
class Figure:
    """One thing measured: by whom, and each round's value."""

    what: str
    unit: str
    who: str
    values: list[float]

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)


class Peers:
    """The command lines of OpenSSH, on the same guest and the same vsock device."""

    def __init__(self, machine: DemoMachine, image: DemoImage, directory: Path):
        proxy = directory / "proxy.py"
        proxy.write_text(PROXY)
        known = directory / "known_hosts"
        known.write_text(f"{NAME} {image.host_key}\n")
        python = os.path.realpath(sys.executable)
        self._options = [
            *("-F", "none"),
            *("-i", str(image.client_key)),
            *("-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={known}"),
            *("-o", f"HostKeyAlias={NAME}"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "ProxyUseFdpass=yes"),
            *("-o", f"ProxyCommand={python} -I -S {proxy} {machine.vsock_path}"),
        ]
        self._master = ["-o", f"ControlPath={directory}/master"]

    def ssh(self, *command: str, warm: bool = False) -> list[str]:
        """Return the argv that runs ``command``; ``warm`` uses the master connection."""
        return ["ssh", *self._options, *(self._master if warm else []), f"root@{NAME}", *command]

    def scp(self, source: str, target: str) -> list[str]:
        """Return the argv that copies; the guest's side is written ``GUEST:path``."""
        ends = (end.replace("GUEST:", f"root@{NAME}:") for end in (source, target))
        return ["scp", "-q", *self._options, *ends]

    @contextlib.contextmanager
    def master(self) -> Iterator[None]:
        """Hold a master connection (ssh_config(5), ControlMaster) for the time of a block."""
        process = subprocess.Popen(
            ["ssh", *self._options, *self._master, "-M", "-N", f"root@{NAME}"]
        )
        try:
            check = ["ssh", *self._options, *self._master, "-O", "check", NAME]
            while subprocess.run(check, capture_output=True, check=False).returncode:
                time.sleep(0.05)
            yield
        finally:
            # A signal between its look for one and its wait is not seen until the next.
            while process.poll() is None:
                process.terminate()
                time.sleep(0.05)


def run(argv: list[str]) -> None:
    """Run a peer's command, quietly."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def rounds(number: int, what: str, unit: str, **contenders: Callable[[], float]) -> list[Figure]:
    """Let each contender warm up once and then take turns."""
    for contender in contenders.values():
        contender()
    values: dict[str, list[float]] = {who: [] for who in contenders}
    for _round in range(number):
        for who, contender in contenders.items():
            values[who].append(contender())
    # A keyword has no spaces and no dots: Guest__run is Guest.run.
    names = {who: who.replace("__", ".").replace("_", " ") for who in contenders}
    return [Figure(what, unit, names[who], values[who]) for who in contenders]


def timed(action: Callable[[], object]) -> Callable[[], float]:
    """Return a contender that gives milliseconds."""

    def contender() -> float:
        started = time.perf_counter()
        action()
        return (time.perf_counter() - started) * 1e3

    return contender


def rate(size: int, action: Callable[[], object]) -> Callable[[], float]:
    """Return a contender that gives MB/s for an action that moves ``size`` bytes."""

    def contender() -> float:
        started = time.perf_counter()
        action()
        return size / 1e6 / (time.perf_counter() - started)

    return contender


@dataclass(frozen=True)
class Stage:
    """The guest, the ways to it, and how much is measured."""

    machine: DemoMachine
    guest: Guest
    peers: Peers
    directory: Path
    size: int
    rounds: int

    def dial(self, port: int) -> contextlib.closing[Stream]:
        """Open a raw vsock stream to a port of the guest."""
        return contextlib.closing(dial(HybridVsock(str(self.machine.vsock_path), port)))


def first_command(stage: Stage) -> list[Figure]:
    """Measure whole processes: start, connect, log in, run ``true``."""
    target = f"qemu:{stage.machine.qmp_path}"
    ours = [VMCONNECT, "exec", "--no-broker", "-n", target, "true"]
    return rounds(
        stage.rounds,
        "first command, whole process",
        "ms",
        vmconnect_exec=timed(lambda: run(ours)),
        ssh=timed(lambda: run(stage.peers.ssh("true"))),
    )


def warm_commands(stage: Stage) -> list[Figure]:
    """Measure ``true`` on connections that stand."""
    guest, peers = stage.guest, stage.peers
    transport = guest._connection._transport  # type: ignore[union-attr]

    def bare() -> None:
        channel: paramiko.Channel = transport.open_session()
        channel.exec_command("true")
        channel.recv_exit_status()
        channel.close()

    with peers.master():
        return rounds(
            4 * stage.rounds,
            "warm command",
            "ms",
            Guest__run=timed(lambda: guest.run(["true"])),
            bare_paramiko=timed(bare),
            ssh_with_ControlMaster=timed(lambda: run(peers.ssh("true", warm=True))),
        )


def bytes_out(stage: Stage) -> list[Figure]:
    """Measure bytes from guest to host."""
    guest, peers, size = stage.guest, stage.peers, stage.size
    remote, local = f"{REMOTE}/zeros", stage.directory / "out"

    def raw() -> None:
        with stage.dial(RAW_OUT) as stream:
            buffer = memoryview(bytearray(1 << 20))
            left = size
            while left:
                count = stream.recv_into(buffer[: min(left, len(buffer))])
                assert count
                left -= count

    def ours() -> None:
        count = 0

        def sink(data: bytes) -> None:
            nonlocal count
            count += len(data)

        guest.run(["head", "-c", str(size), "/dev/zero"], stdout=sink)
        assert count == size

    guest.run(["sh", "-c", f"head -c {size} /dev/zero >{remote}"])
    return rounds(
        stage.rounds,
        "guest to host",
        "MB/s",
        raw_vsock=rate(size, raw),
        Guest__run=rate(size, ours),
        Guest__get=rate(size, lambda: guest.get(remote, local)),
        scp=rate(size, lambda: run(peers.scp(f"GUEST:{remote}", str(local)))),
    )


def bytes_in(stage: Stage) -> list[Figure]:
    """Measure bytes from host to guest."""
    guest, peers, size = stage.guest, stage.peers, stage.size
    remote, local = f"{REMOTE}/copied", stage.directory / "in"
    local.write_bytes(bytes(size))
    chunk = bytes(1 << 18)

    def raw() -> None:
        with stage.dial(RAW_IN) as stream:
            for _chunk in range(size // len(chunk)):
                stream.sendall(chunk)
            stream.shutdown_write()
            assert stream.recv(1) == b"."  # The guest has read it all.

    return rounds(
        stage.rounds,
        "host to guest",
        "MB/s",
        raw_vsock=rate(size, raw),
        Guest__run=rate(size, lambda: guest.run(["sh", "-c", "cat >/dev/null"], stdin=bytes(size))),
        Guest__put=rate(size, lambda: guest.put(local, remote)),
        scp=rate(size, lambda: run(peers.scp(str(local), f"GUEST:{remote}"))),
    )


@contextlib.contextmanager
def raw_servers(stage: Stage) -> Iterator[None]:
    """Let socat in the guest take and give bytes on two vsock ports."""
    guest = stage.guest
    script = f"""
        echo 'cat >/dev/null; printf .' >{REMOTE}/take
        exec 3>&1 >/dev/null 2>&1 </dev/null
        socat -b 65536 VSOCK-LISTEN:{RAW_IN},fork,reuseaddr \\
            EXEC:'/bin/sh {REMOTE}/take',nofork 3>&- &
        echo $! >&3
        socat -b 65536 -U VSOCK-LISTEN:{RAW_OUT},fork,reuseaddr OPEN:/dev/zero 3>&- &
        echo $! >&3
    """
    servers = guest.run(["sh", "-c", script]).text.split()
    try:
        for port in (RAW_IN, RAW_OUT):
            Retry().attempt(functools.partial(_reach, stage, port), Deadline(10))
        yield
    finally:
        guest.run(["kill", *servers], timeout=10)


def _reach(stage: Stage, port: int) -> None:
    with stage.dial(port):
        pass


def table(figures: list[Figure]) -> str:
    """Return the figures as Markdown, with each measurement's ratio to its last peer."""
    lines = ["| | | median | min to max | to the peer |", "|---|---|---:|---:|---:|"]
    for figure in figures:
        peer = [each for each in figures if each.what == figure.what][-1]
        ratio = figure.median / peer.median
        told = "" if figure is peer else f"{ratio:.2f}x {peer.who}"
        spread = f"{min(figure.values):.1f} to {max(figure.values):.1f}"
        lines.append(
            f"| {figure.what} | {figure.who} | {figure.median:.1f} {figure.unit} "
            f"| {spread} | {told} |"
        )
    return "\n".join(lines)


def plot(figures: list[Figure], path: Path) -> None:
    """Draw a bar for each contender, one panel a measurement."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    topics = list(dict.fromkeys(figure.what for figure in figures))
    canvas, panels = plt.subplots(len(topics), 1, figsize=(8, 1.7 * len(topics)))
    for panel, topic in zip(panels, topics, strict=True):
        bars = [figure for figure in figures if figure.what == topic][::-1]
        colours = ["#8a8f98" if bar.who in PEERS else "#1f6feb" for bar in bars]
        drawn = panel.barh([bar.who for bar in bars], [bar.median for bar in bars], color=colours)
        panel.bar_label(drawn, fmt="%.1f", padding=3)
        better = "less is better" if bars[0].unit in {"ms", "s"} else "more is better"
        panel.set_title(f"{topic} ({bars[0].unit}, {better})", loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.12)
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)


def main() -> None:
    """Boot the guest, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    size = arguments.megabytes << 20
    figures: list[Figure] = []
    with TerminalProgress() as progress, tempfile.TemporaryDirectory(prefix="vmc-") as name:
        directory = Path(name)
        image = build(progress)
        started = time.perf_counter()
        progress.step("Booting the guest")
        with (
            DemoMachine.start(NAME, image=image, progress=progress) as machine,
            connect(f"qemu:{machine.qmp_path}") as session,
        ):
            guest = session.guest(timeout=120, wait=True)
            guest.run(["true"])
            booted = time.perf_counter() - started
            figures.append(Figure("boot to first command", "s", "vmconnect", [booted]))
            peers = Peers(machine, image, directory)
            stage = Stage(machine, guest, peers, directory, size, arguments.rounds)
            progress.step("First command")
            figures += first_command(stage)
            progress.step("Warm commands")
            figures += warm_commands(stage)
            with raw_servers(stage):
                progress.step("Guest to host")
                figures += bytes_out(stage)
                progress.step("Host to guest")
                figures += bytes_in(stage)
    print(table(figures))
    if arguments.json:
        rows = [{**vars(figure), "median": figure.median} for figure in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        plot([figure for figure in figures if figure.unit != "s"], arguments.plot)


if __name__ == "__main__":
    main()
