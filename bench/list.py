"""``vmconnect list`` over many machines beside ``virsh list`` on libvirt's test driver.

Whole processes, in turns, on one processor. Ours asks as many simulated QMP monitors, each over its
own socket, served from the other processors; virsh has as many domains in its own memory, from a
file. ::

    python -m bench.list [--machines N] [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.guest import VMCONNECT
from tests.hypervisor.monitors import monitors, uuid_of

_DOMAIN = (
    "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>262144</memory>"
    "<os><type>hvm</type></os></domain>\n"
)


@dataclass
class Contender:
    """One program, and what each of its runs took, in seconds."""

    name: str
    command: list[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, env: dict[str, str], machines: int) -> None:
        """Run it once, and check that it lists them all."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        output = subprocess.run(
            self.command, env=env, stdout=subprocess.PIPE, check=True, text=True
        ).stdout
        self.wall.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert output.count("running") == machines, output[:500]


def main() -> int:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description="vmconnect list beside virsh list")
    parser.add_argument("--machines", type=int, default=1000, metavar="N")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    count = options.machines
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        directory = Path(name)
        domains = directory / "domains.xml"
        domains.write_text(
            "<node>"
            + "".join(
                _DOMAIN.format(name=f"vm{n:04}", uuid=uuid_of(n)) for n in range(1, count + 1)
            )
            + "</node>"
        )
        contenders = [
            Contender("vmconnect list", [VMCONNECT, "list"]),
            Contender("virsh list", ["virsh", "-c", f"test://{domains}", "list"]),
        ]
        env = {**os.environ, "VMCONNECT_HYPERVISORS": name}
        # As installed: without compiled modules every start would compile them anew.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        with monitors(directory, count) as server:
            first, *others = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(server.pid, others or {first})
            os.sched_setaffinity(0, {first})
            for number in range(options.rounds + 1):
                for each in contenders:
                    each.run(env, count)
                    if not number:  # To warm up.
                        each.wall.clear()
                        each.cpu.clear()
    if options.json:
        json.dump([asdict(each) for each in contenders], sys.stdout, indent=1)
        print()
    else:
        show(contenders, count)
    return 0


def show(contenders: list[Contender], count: int) -> None:
    """Print the table."""
    peer = statistics.median(contenders[-1].wall)
    print("| | whole process, ms | min to max | CPU ms | per machine, µs | to virsh |")
    print("|---|---:|---:|---:|---:|---:|")
    for each in contenders:
        wall, cpu = statistics.median(each.wall), statistics.median(each.cpu)
        spread = f"{min(each.wall) * 1e3:.0f} to {max(each.wall) * 1e3:.0f}"
        print(
            f"| {each.name} | {wall * 1e3:.0f} | {spread} | {cpu * 1e3:.0f} "
            f"| {wall / count * 1e6:.0f} | {wall / peer:.2f}x |"
        )


if __name__ == "__main__":
    sys.exit(main())
