"""The guest agent's round trip for ``true``, beside ``virsh qemu-agent-command``.

One libvirtd, one guest, one qemu-ga in it; contenders take turns. Each starts ``true`` and asks
until it has ended. virsh asks without a pause: as a process for each request, which is what scripts
do, and as one process that is told the next request as soon as it has answered the last. ::

    python -m bench.agent [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.guest import VMCONNECT
from tests.hypervisor.libvirtd import session_daemon
from tests.session.test_agent_access import DOMAIN
from vmconnect.deadline import Deadline
from vmconnect.demo import build
from vmconnect.demo.accelerator import choose_accelerator
from vmconnect.direct.agent import GuestAgent
from vmconnect.errors import DeadlineError
from vmconnect.hypervisor import Libvirt, LibvirtAddress, Machine
from vmconnect.session.agent_access import open_agent

_BOOT_SECONDS, _LOOK_SECONDS, _ASK_SECONDS = 180.0, 30.0, 0.5
_EXEC = json.dumps({"execute": "guest-exec", "arguments": {"path": "true", "capture-output": True}})
_ANSWER = re.compile(rb'\{"(?:return|error)":.*\}')


@dataclass
class Contender:
    """One way to run ``true``, and what each round took, in milliseconds."""

    name: str
    run: Callable[[], object] = field(repr=False)
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)

    def turn(self) -> None:
        """Run it once."""
        started = time.perf_counter()
        self.run()
        self.values.append((time.perf_counter() - started) * 1e3)


@contextlib.contextmanager
def domain() -> Iterator[tuple[LibvirtAddress, Machine]]:
    """Give a machine of a libvirtd's own, whose guest agent answers."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)  # It prints them.
    image = build()
    with session_daemon() as (address, room):
        for name in ("kernel", "initrd"):
            shutil.copyfile(getattr(image, name), room / name)
            (room / name).chmod(0o644)
        words = " ".join(choose_accelerator().kernel_words)
        connection = libvirt.open(address.uri)
        live = connection.createXML(DOMAIN.format(room=room, words=words))
        try:
            with Libvirt(address) as hypervisor:
                (machine,) = hypervisor.look_up("web01", Deadline(_LOOK_SECONDS))
            end = time.monotonic() + _BOOT_SECONDS
            while time.monotonic() < end:
                with contextlib.suppress(DeadlineError), open_agent(machine, 5.0):
                    break
                time.sleep(_ASK_SECONDS)  # Not until it is there does libvirt wait for it.
            yield address, machine
        finally:
            live.destroy()
            connection.close()


class Virsh:
    """One virsh that is given its commands one after the other."""

    def __init__(self, uri: str):
        self._process = subprocess.Popen(
            ["virsh", "-q", "-c", uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, request: str) -> dict[str, dict[str, object]]:
        """Send a request, and return the reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"qemu-agent-command web01 '{request}'\n".encode())
        self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            assert line, "virsh has ended"
            if match := _ANSWER.search(line):
                found: dict[str, dict[str, object]] = json.loads(match[0])
                return found

    def close(self) -> None:
        """End it."""
        self._process.communicate(b"quit\n")


def ask_by_process(uri: str, request: str) -> dict[str, dict[str, object]]:
    """Let a virsh of its own send a request, and return the reply."""
    command = ["virsh", "-q", "-c", uri, "qemu-agent-command", "web01", request]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, dict[str, object]] = json.loads(output)
    return found


def poll(ask: Callable[[str], dict[str, dict[str, object]]]) -> None:
    """Run ``true`` by whoever asks, asking until it has ended."""
    pid = ask(_EXEC)["return"]["pid"]
    status = json.dumps({"execute": "guest-exec-status", "arguments": {"pid": pid}})
    while not ask(status)["return"]["exited"]:
        pass


def run_ours(agent: GuestAgent) -> None:
    """Run ``true`` as anybody does who uses vmconnect."""
    assert agent.run(["true"]).ok


def main() -> int:
    """Boot the guest, measure, print."""
    parser = argparse.ArgumentParser(description="the guest agent's round trip beside virsh's")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with domain() as (address, machine), contextlib.ExitStack() as held:
        virsh = Virsh(address.uri)
        held.callback(virsh.close)
        agent = held.enter_context(open_agent(machine))
        process = [VMCONNECT, "agent", "exec", "-n", "--json"]
        process += [machine.target, "true"]
        # As installed: without compiled modules every start would compile them anew.
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        by_process = Contender(
            "virsh, a process a request",
            lambda: poll(lambda request: ask_by_process(address.uri, request)),
        )
        contenders = [
            Contender("GuestAgent.run", lambda: run_ours(agent)),
            Contender("virsh, one process for all", lambda: poll(virsh.ask)),
            by_process,
        ]
        measure(contenders, options.rounds)
        # An agent is one vmconnect's at a time, so the one above has to leave for the process.
        held.pop_all().close()
        ours = Contender(
            "vmconnect agent exec, whole process",
            lambda: subprocess.run(process, check=True, env=env, stdout=subprocess.DEVNULL),
        )
        measure([ours], options.rounds)
        contenders.insert(2, ours)
    print("| `true` by the guest agent | median | min to max | to virsh, a process a request |")
    print("|---|---:|---:|---:|")
    for each in contenders:
        ratio = each.median / by_process.median
        told = "" if each is by_process else f"{ratio:.2f}x"
        spread = f"{min(each.values):.1f} to {max(each.values):.1f}"
        print(f"| {each.name} | {each.median:.1f} ms | {spread} | {told} |")
    if options.json:
        rows = [
            {"name": each.name, "values": each.values, "median": each.median} for each in contenders
        ]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def measure(contenders: list[Contender], rounds: int) -> None:
    """Let the contenders warm up once and then take turns."""
    for each in contenders:
        each.run()
    for _round in range(rounds):
        for each in contenders:
            each.turn()


if __name__ == "__main__":
    sys.exit(main())
