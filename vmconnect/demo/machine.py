"""The demo machine: QEMU with our vsock device, from start to stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import selectors
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import vmconnect
from vmconnect.deadline import Deadline
from vmconnect.demo.accelerator import choose_accelerator
from vmconnect.demo.image import DemoImage, build
from vmconnect.demo.keeper import LOG_DESCRIPTOR, Plan, claimed, clear
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    MissingDependencyError,
    ResourceError,
    StateError,
)
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.paths import private_directory, runtime_directory
from vmconnect.progress import Progress, Silent
from vmconnect.streams import Unix

__all__ = ["DemoMachine"]

_QEMU = "qemu-system-x86_64"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SUN_PATH_BYTES = 107  # unix(7), without the terminating zero
# CIDs 0 to 2 are taken (vsock(7)); the highest is "any".
_FIRST_CID, _CIDS = 3, 0xFFFF_FFF0
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 160, 65536
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02

# The kernel tests every cipher at boot, and resets its trace clock after an emulated one was
# found unstable: together most of a second. It clears each page that it hands out: a twelfth of
# all instructions until /init runs.
_KERNEL_WORDS = (
    "console=ttyS0",
    "console=tty0",
    "cryptomgr.notests",
    "trace_clock=local",
    "init_on_alloc=0",
)


class DemoMachine:
    """A running demo machine; leave the ``with`` block, or call `stop`, to end it.

    It ends, and leaves nothing behind, also when this process does, in whatever way. Sockets and
    files are in ``directory`` as ``NAME.qmp``, ``NAME.events`` (a second monitor), ``NAME.vnc``,
    ``NAME.vsock`` (hybrid vsock), ``NAME.qga`` (guest agent), ``NAME.serial`` (second console),
    ``NAME.log`` (what the serial console said last) and ``NAME.json`` (how to log in).
    """

    def __init__(
        self, plan: Plan, image: DemoImage, identity: str, keeper: subprocess.Popen[bytes]
    ):
        """Take over a keeper that has been given its plan; use `start`."""
        self.name = plan.name
        self.uuid = identity
        self.image = image
        self.process = keeper
        self._plan = plan
        self.pid: int | None = None  # QEMU's
        self.qmp_path = plan.path("qmp")
        self.vnc_path = plan.path("vnc")
        self.vsock_path = plan.path("vsock")
        self.agent_path = plan.path("qga")
        self.serial_path = plan.path("serial")
        self.serial_log = plan.path("log")
        self.description_path = plan.path("json")
        self.client_key = plan.path("key")
        self._ended: dict[str, Any] | None = None
        self._partial = b""

    @classmethod
    def start(
        cls,
        name: str = "demo",
        *,
        image: DemoImage | None = None,
        memory_mib: int = 256,
        progress: Progress | None = None,
        directory: Path | None = None,
        paused: bool = False,
    ) -> Self:
        """Start a machine and return when QEMU answers; the guest is then booting.

        The image is built if none is given. ``paused`` leaves the processors stopped before the
        first instruction, for whoever wants to see everything: QMP's ``cont`` runs them.

        Raises StateError when a machine of that name runs, MissingDependencyError without QEMU,
        ResourceError when it does not start, and what `build` raises.
        """
        progress = progress or Silent()
        if not _NAME.fullmatch(name):
            raise StateError(f"{name!r} is no name for a machine", hint="letters, digits, . _ -")
        if not MIN_MEMORY_MIB <= memory_mib <= MAX_MEMORY_MIB:
            raise StateError(
                f"the demo machine needs {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB of memory"
            )
        if shutil.which(_QEMU) is None:
            raise MissingDependencyError(
                f"{_QEMU} is not installed", hint="apt install qemu-system-x86"
            )
        where = private_directory(directory) if directory else runtime_directory()
        longest = where / f"{name}.serial"
        if len(os.fsencode(longest)) > _SUN_PATH_BYTES:
            raise ResourceError(
                f"the path {longest} is too long for a socket",
                hint="a shorter name, or a shorter XDG_RUNTIME_DIR",
            )
        image = image or build(progress)
        identity = str(uuid.uuid4())
        plan = _plan(name, image, where, identity, memory_mib, paused=paused)
        progress.step(f"Starting {name}")
        machine = cls(plan, image, identity, _start_keeper(plan))
        try:
            machine._wait_started(Deadline(_START_SECONDS))
        except BaseException:
            machine.stop()
            raise
        return machine

    @property
    def running(self) -> bool:
        """Whether QEMU runs, paused or not."""
        return self._ended is None and self.process.poll() is None

    @property
    def end_reason(self) -> str | None:
        """Why the machine ended, None while it runs."""
        if self._ended is None and self.process.poll() is not None:
            self._read_events(Deadline(0))
        return None if self._ended is None else str(self._ended["reason"])

    def wait(self, timeout: Deadline | float | None = None) -> str:
        """Wait until the machine has ended and return why; DeadlineError if it has not."""
        deadline = Deadline.of(timeout)
        while self._ended is None:
            if not self._read_events(deadline):
                raise DeadlineError("the machine still runs", machine=self.name)
        self._reap(deadline)
        return str(self._ended["reason"])

    def stop(self) -> None:
        """Pull the plug: end QEMU, and remove its files. Again and again if one likes."""
        assert self.process.stdin is not None  # noqa: S101 (a pipe)
        with contextlib.suppress(OSError):
            # The keeper takes the end of its input for the order to stop.
            self.process.stdin.close()
        try:
            self.wait(_STOP_SECONDS)
        except DeadlineError:
            self.process.kill()  # its children die with it
            self._reap(Deadline(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_started(self, deadline: Deadline) -> None:
        """Wait until QEMU's main loop answers, so that its start is known to have worked."""
        while True:
            self._read_events(Deadline(_POLL_SECONDS))
            if self._ended is not None:
                raise self._start_error()
            deadline.check(f"starting {_QEMU}")
            if self.pid is None:
                continue
            try:
                monitor = QmpClient.connect(Unix(str(self.qmp_path)), deadline.sooner(5.0))
            except (ConnectError, ConnectionLostError):
                continue  # not yet listening, or just ending
            try:
                monitor.execute("query-status", timeout=deadline)
            except ConnectionLostError:
                continue
            finally:
                monitor.close()
            return

    def _start_error(self) -> StateError | ResourceError:
        assert self._ended is not None  # noqa: S101 (asked for only then)
        reason = str(self._ended["reason"])
        if reason == "running":
            return StateError(
                "a machine of this name is running already",
                machine=self.name,
                hint="stop that one, or give this one another name",
            )
        return ResourceError(f"the machine does not start: {reason}", machine=self.name)

    def _read_events(self, deadline: Deadline) -> bool:
        """Read what the keeper says, waiting for it at most until the deadline.

        Returns whether anything was said; the end of its output is the end of the machine.
        """
        assert self.process.stdout is not None  # noqa: S101 (a pipe)
        descriptor = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            if not selector.select(deadline.remaining()):
                return False
        data = os.read(descriptor, 1 << 16)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "started":
                self.pid = event["pid"]
            else:
                self._ended = event
        if not data and self._ended is None:
            self._ended = {"reason": "the machine's keeper was killed", "status": None}
            with contextlib.suppress(OSError), claimed(self._plan) as ours:
                if ours:  # no machine of the same name has started since
                    clear(self._plan)
        return True

    def _reap(self, deadline: Deadline) -> None:
        try:
            self.process.wait(deadline.remaining())
        except subprocess.TimeoutExpired as error:
            raise DeadlineError("the machine still runs", machine=self.name) from error
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _plan(
    name: str, image: DemoImage, directory: Path, identity: str, memory_mib: int, *, paused: bool
) -> Plan:
    base = directory / name
    device = [
        *(*_python(), "-m", "vmconnect", "vsock-device"),
        *("--socket", f"{base}.vu", "--uds", f"{base}.vsock", "--cid"),
        str(_FIRST_CID + secrets.randbelow(_CIDS - _FIRST_CID)),
    ]
    description = {
        "name": name,
        "uuid": identity,
        "guest": {
            "user": "root",
            "identity_file": f"{base}.key",
            "endpoint": f"vsock-mux{base}.vsock",
            "host_key": image.host_key,
        },
    }
    try:
        files = {"json": json.dumps(description), "key": image.client_key.read_text()}
    except OSError as error:
        raise ResourceError(
            f"cannot read {image.client_key}: {error.strerror}", hint="build the image again"
        ) from error
    qemu = _qemu_arguments(name, image, base, identity, memory_mib)
    return Plan(str(directory), name, device, [*qemu, *(["-S"] if paused else [])], files)


def _qemu_arguments(
    name: str, image: DemoImage, base: Path, identity: str, memory_mib: int
) -> list[str]:
    accelerator = choose_accelerator()
    path = str(base).replace(",", ",,")  # QEMU splits options at single commas
    return [
        *(_QEMU, "-nodefaults", "-no-user-config"),
        *("-name", f"guest={name}"),
        *("-uuid", identity),
        *("-machine", "q35,memory-backend=ram,vmport=off"),
        *accelerator.arguments,
        *("-smp", "2", "-m", str(memory_mib)),
        # vhost-user reads and writes the guest's memory: it has to be shareable.
        *("-object", f"memory-backend-memfd,id=ram,size={memory_mib}M,share=on"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-vga", "std", "-display", "none", "-vnc", f"unix:{path}.vnc"),
        *("-device", "virtio-tablet-pci"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=vsock,path={path}.vu"),
        *("-device", "vhost-user-vsock-pci,chardev=vsock"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={path}.qga,server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *(
            "-chardev",
            f"socket,id=serial,path={path}.serial,server=on,wait=off,logfile={LOG_DESCRIPTOR}",
        ),
        *("-serial", "chardev:serial"),
        *("-qmp", f"unix:{path}.qmp,server=on,wait=off"),
        *("-qmp", f"unix:{path}.events,server=on,wait=off"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd).replace(",", ",,")),
        *("-append", " ".join((*_KERNEL_WORDS, *accelerator.kernel_words))),
    ]


def _python() -> list[str]:
    """Return how to run this Python; -P keeps the working directory's modules out."""
    return [sys.executable, "-P"]


def _start_keeper(plan: Plan) -> subprocess.Popen[bytes]:
    package = str(Path(vmconnect.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        keeper = subprocess.Popen(
            [*_python(), "-m", "vmconnect.demo.keeper"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            # The terminal's Ctrl-C is for whoever started us to understand.
            start_new_session=True,
        )
    except OSError as error:
        raise ResourceError(f"cannot start {sys.executable}: {error.strerror}") from error
    assert keeper.stdin is not None  # noqa: S101 (a pipe)
    with contextlib.suppress(BrokenPipeError):  # its end is seen by whoever waits for its start
        keeper.stdin.write(plan.to_line())
    return keeper
