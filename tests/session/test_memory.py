"""What is remembered of machines, on real QEMUs: never longer than it is true."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisor.rig import qemu
from vmconnect.errors import MachineNotFoundError
from vmconnect.hypervisor import Machine
from vmconnect.session import parse_target
from vmconnect.session.memory import MachineMemory

UUIDS = [f"0a0b0c0d-0001-4002-8003-00000000000{number}" for number in range(4)]


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def memory() -> MachineMemory:
    return MachineMemory()


def settle() -> None:
    """Let what was changed become the past, for the kernel's clock."""
    time.sleep(0.1)


def learn(memory: MachineMemory, text: str) -> Machine:
    """Resolve a target until it is remembered."""
    settle()
    machine, remembered = memory.resolve(parse_target(text))
    assert not remembered
    again, remembered = memory.resolve(parse_target(text))
    assert remembered
    assert again == machine
    return machine


@pytest.mark.parametrize("form", ["web01", "qemu:{}/web01.qmp"])
def test_a_machine_is_asked_once(directory: Path, memory: MachineMemory, form: str) -> None:
    text = form.format(directory)
    with qemu(directory, "web01", "-name", "web01", "-uuid", UUIDS[0]):
        machine = learn(memory, text)
        assert machine.identity == UUIDS[0]
        assert memory.resolve(parse_target(text))[1]
        memory.forget(parse_target(text))
        assert not memory.resolve(parse_target(text))[1]


def test_another_machine_of_the_same_name_is_another(
    directory: Path, memory: MachineMemory
) -> None:
    with qemu(directory, "web01", "-name", "web01", "-uuid", UUIDS[0]):
        learn(memory, "web01")
        # The first runs on; its monitor has another name now.
        (directory / "web01.qmp").rename(directory / "old.qmp")
        with qemu(directory, "web01", "-name", "web01", "-uuid", UUIDS[1]):
            machine, remembered = memory.resolve(parse_target("web01"))
            assert (machine.identity, remembered) == (UUIDS[1], False)
    with pytest.raises(MachineNotFoundError):
        memory.resolve(parse_target("web01"))


def test_what_lies_beside_the_monitor_counts(directory: Path, memory: MachineMemory) -> None:
    note = directory / "web01.json"
    with qemu(directory, "web01", "-name", "web01"):
        assert learn(memory, "web01").note.user is None
        note.write_text(json.dumps({"guest": {"user": "ann"}}))
        note.chmod(0o600)
        assert memory.resolve(parse_target("web01"))[0].note.user == "ann"
        assert learn_again(memory).note.user == "ann"
        note.write_text(json.dumps({"guest": {"user": "bob"}}))
        assert memory.resolve(parse_target("web01"))[0].note.user == "bob"
        assert learn_again(memory).note.user == "bob"
        note.unlink()
        assert memory.resolve(parse_target("web01"))[0].note.user is None


def learn_again(memory: MachineMemory) -> Machine:
    memory.forget(parse_target("web01"))
    return learn(memory, "web01")


def test_what_has_just_changed_is_not_trusted_yet(directory: Path, memory: MachineMemory) -> None:
    with qemu(directory, "web01", "-name", "web01"):
        target = parse_target("web01")
        (directory / "web01.json").write_text("{}")
        memory.resolve(target)
        assert not memory.resolve(target)[1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("web*", id="a pattern"),
        pytest.param(UUIDS[0].upper(), id="a UUID"),
        pytest.param("web02", id="a name that its socket does not have"),
    ],
)
def test_what_other_machines_could_answer_to_is_asked_each_time(
    directory: Path, memory: MachineMemory, text: str
) -> None:
    name = "web02" if text == "web02" else "web01"
    with qemu(directory, "web01", "-name", name, "-uuid", UUIDS[0]):
        settle()
        for _ in range(3):
            machine, remembered = memory.resolve(parse_target(text))
            assert (machine.name, remembered) == (name, False)


def test_a_name_that_two_hypervisors_may_know_is_asked_each_time(
    directory: Path, memory: MachineMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = directory / "other"
    other.mkdir()
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", f"{directory} {other}")
    with qemu(directory, "web01", "-name", "web01"):
        settle()
        for _ in range(3):
            assert not memory.resolve(parse_target("web01"))[1]


def test_an_address_needs_no_memory(memory: MachineMemory) -> None:
    for _ in range(2):
        machine, remembered = memory.resolve(parse_target("vsock/5"))
        assert (machine.name, remembered) == ("vsock/5", False)


def test_memory_is_bounded(
    directory: Path, memory: MachineMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmconnect.session.memory._MOST_MACHINES", 1)
    with qemu(directory, "web01", "-name", "web01"), qemu(directory, "web02", "-name", "web02"):
        learn(memory, "web01")
        learn(memory, "web02")
        assert not memory.resolve(parse_target("web01"))[1]
