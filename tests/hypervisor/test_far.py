"""What hypervisors of another host can be asked, by a real ssh: all but what is "here" only."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hypervisor.rest_servers import CloudHypervisorModel, serving
from tests.hypervisor.rig import qcow2, qemu, soon
from tests.streams.far_host import FarHost, far_host
from vmconnect.errors import UnsupportedError
from vmconnect.hypervisor import Capability, Hypervisor, Machine, PowerState, Qemu
from vmconnect.hypervisor.libvirt import Libvirt
from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.hypervisor.rest import CloudHypervisor
from vmconnect.streams import SshHost, ThroughSsh

Ask = Callable[[Any, Machine], object]

# How each is asked for.
QUESTIONS: dict[Capability, Ask] = {
    Capability.LIST: lambda far, _: far.machines(soon()),
    Capability.WATCH: lambda far, _: far.watch(soon()),
    Capability.POWER_ON: lambda far, machine: far.power_on(machine, soon()),
    Capability.RESET: lambda far, machine: far.reset(machine, soon()),
    Capability.PAUSE: lambda far, machine: far.pause(machine, soon()),
    Capability.RESUME: lambda far, machine: far.resume(machine, soon()),
    Capability.SAVE: lambda far, machine: far.save(machine, soon()),
    Capability.CHECKPOINTS: lambda far, machine: far.checkpoints(machine, soon()),
    Capability.CREATE_CHECKPOINT: lambda far, machine: far.create_checkpoint(machine, "a", soon()),
    Capability.APPLY_CHECKPOINT: lambda far, machine: far.apply_checkpoint(machine, "a", soon()),
    Capability.DELETE_CHECKPOINT: lambda far, machine: far.delete_checkpoint(machine, "a", soon()),
    Capability.DRIVES: lambda far, machine: far.drives(machine, soon()),
    Capability.SCREENSHOT: lambda far, machine: far.screenshot(machine, soon()),
    Capability.SEND_KEYS: lambda far, machine: far.send_keys(machine, [28], soon()),
    Capability.OPEN_CONSOLE: lambda far, machine: far.open_console(machine, soon()),
    Capability.CONSOLE_PASSWORD: lambda far, machine: far.set_console_password(
        machine, "sesame", soon()
    ),
}


@pytest.fixture
def kvm7(directory: Path) -> Iterator[FarHost]:
    """Give a host to reach by ssh."""
    with far_host(directory) as host:
        yield host


def check(far: Hypervisor, machine: Machine, asked: set[Capability]) -> None:
    """Ask for all of these, in the table's order, and see that those of here alone are refused."""
    assert far.far
    assert not far.capabilities & far.here_only
    for capability, ask in QUESTIONS.items():
        if capability not in asked:
            continue
        if capability in far.here_only:
            with pytest.raises(UnsupportedError):
                ask(far, machine)
        else:
            ask(far, machine)


def test_a_far_qemu_can_all_but_what_is_of_its_host(kvm7: FarHost, directory: Path) -> None:
    disk = qcow2(directory / "disk.qcow2")
    options = ("-vga", "std", "-vnc", f"unix:{directory}/m.vnc,password=on")
    with (
        qemu(directory, "m", *options, "-drive", f"file={disk},if=ide"),
        Qemu(directory, SshHost(kvm7.name)) as far,
    ):
        machine = far.inspect(directory / "m.qmp", soon())
        assert isinstance(machine.console, ThroughSsh)
        # To save ends it.
        check(far, machine, set(QUESTIONS) - {Capability.SAVE})
        assert far.refresh(machine, soon()).state is not PowerState.UNKNOWN


def test_a_far_cloud_hypervisor_can_all_but_what_is_of_its_host(
    kvm7: FarHost, directory: Path
) -> None:
    with (
        serving(CloudHypervisorModel({}), directory / "m.ch"),
        CloudHypervisor(directory, SshHost(kvm7.name)) as far,
    ):
        machine = far.inspect(directory / "m.ch", soon())
        check(
            far, machine, {Capability.POWER_ON, Capability.PAUSE, Capability.RESUME, *far.here_only}
        )


def test_a_far_libvirt_hands_over_no_console() -> None:
    with Libvirt(LibvirtAddress("system", "kvm7")) as far:
        check(far, Machine("m", "m", "m"), set(far.here_only))
