"""``vmconnect exec -m`` over many machines beside ssh in parallel (``xargs -P``): CPU and memory.

Each machine is a real sshd behind a hybrid vsock socket, started anew for each connection, as
guests have it. Whole processes in turns; the sshds' own time is not counted. ssh reaches the same
sshd by 127.0.0.1, so that no proxy is to be paid; once as it comes, once with the key exchange that
paramiko takes, as OpenSSH 9's own (sntrup761) costs much more. ::

    python -m bench.fanout [--machines N] [--rounds N] [--many N] [--json FILE] [--plot FILE.png]

``--many`` machines are then run over once, by ours alone, for the memory that it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.guest import VMCONNECT, Figure, plot, table
from tests.direct.ssh_servers import SshServers, ssh_servers

THROTTLE = 32
COMMAND = ["hostname"]
EXCHANGE = "curve25519-sha256"


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    cpu_s: float
    wall_s: float


def measured(argv: list[str], expected: int, given: str = "") -> Cost:
    """Run a command that writes a line for each machine, and return what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.count("\n") == expected, (done.stdout[-500:], done.stderr[-500:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, wall)


def ours(servers: SshServers) -> list[str]:
    """Return the argv of our command, over the group that `settle` has written."""
    options = ["-q", "--throttle", str(THROTTLE), "-i", str(servers.identity_file)]
    return [VMCONNECT, "exec", "-m", "@all", *options, "--accept-new-host-key", "--", *COMMAND]


def ssh(servers: SshServers, *options: str) -> list[str]:
    """Return the argv that runs ssh for each line of its input."""
    return [
        *("xargs", f"-P{THROTTLE}", "-I{}"),
        *("ssh", "-F", "none", "-i", str(servers.identity_file), "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={servers.directory}/known_hosts"),
        *("-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias={}", *options),
        *("-p", str(servers.port), "127.0.0.1", *COMMAND),
    ]


def settle(servers: SshServers) -> None:
    """Let both know the machines, and be installed: compiled modules are kept."""
    groups = servers.directory / "vmconnect" / "groups.toml"
    groups.parent.mkdir(mode=0o700, exist_ok=True)
    targets = [servers.target(name) for name in servers.names]
    groups.write_text(f"all = {json.dumps(targets)}\n")
    known = [f"{name} {servers.host_key}\n" for name in servers.names]
    (servers.directory / "known_hosts").write_text("".join(known))
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        os.environ[variable] = str(servers.directory)
    os.environ["VMCONNECT_BROKER"] = "0"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.pop("SSH_AUTH_SOCK", None)


def beside_ssh(servers: SshServers, rounds: int) -> list[Figure]:
    """Let ours and ssh take turns."""
    names = "\n".join(servers.names)
    count = servers.count
    contenders: dict[str, Callable[[], Cost]] = {
        "vmconnect exec -m": lambda: measured(ours(servers), count),
        f"ssh, {EXCHANGE}": lambda: measured(
            ssh(servers, "-o", f"KexAlgorithms={EXCHANGE}"), count, names
        ),
        "ssh": lambda: measured(ssh(servers), count, names),
    }
    costs: dict[str, list[Cost]] = {who: [] for who in contenders}
    for number in range(rounds + 1):
        for who, contender in contenders.items():
            cost = contender()
            if number:  # The first is to warm up.
                costs[who].append(cost)
    cpu = f"CPU per machine, of {count}"
    return [
        *(Figure(cpu, "ms", who, [1e3 * c.cpu_s / count for c in costs[who]]) for who in costs),
        *(Figure("wall time of all", "s", who, [c.wall_s for c in costs[who]]) for who in costs),
    ]


def memory(servers: SshServers) -> str:
    """Run over all once, and return what it took at most."""
    argv = [sys.executable, "-m", "bench.fanout", "--child", *ours(servers)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    peak, wall, cpu = json.loads(done.stdout)
    return (
        f"{servers.count} machines, {THROTTLE} at once: {peak / 1024:.0f} MiB at most, "
        f"{wall:.0f} s, {1e3 * cpu / servers.count:.1f} ms of CPU each"
    )


def child(argv: list[str]) -> None:
    """Run one command, and print the most memory that it had, and its times."""
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter() - started
    print(json.dumps([used.ru_maxrss, wall, used.ru_utime + used.ru_stime]))


def main() -> None:
    """Measure, print."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    if arguments.rounds:
        with (
            tempfile.TemporaryDirectory(prefix="vmc-") as name,
            ssh_servers(Path(name), arguments.machines) as servers,
        ):
            settle(servers)
            figures = beside_ssh(servers, arguments.rounds)
        print(table(figures))
    if arguments.json:
        rows = [{**vars(figure), "median": figure.median} for figure in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    for count in (arguments.machines, arguments.many) if arguments.many else ():
        with (
            tempfile.TemporaryDirectory(prefix="vmc-") as name,
            ssh_servers(Path(name), count) as servers,
        ):
            settle(servers)
            print(memory(servers))
    if arguments.plot:
        plot(figures, arguments.plot)


if __name__ == "__main__":
    main()
