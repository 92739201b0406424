"""``vmconnect hints``: what it prints makes a machine reachable, on real QEMUs and libvirtds."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hypervisor.libvirtd import session_daemon
from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import qemu, soon, wait_for_monitor
from vmconnect.cli import main
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.hypervisor import Libvirt
from vmconnect.session import recipes as recipes_of
from vmconnect.session.hints import hints_for
from vmconnect.session.recipes import Part, Place, Recipe, recipes_for

WAIT = 60.0


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        assert main(["hints", *words]) == 0
        out, err = self._capsys.readouterr()
        assert err == ""
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def parts(told: Any) -> dict[str, bool | None]:
    return {each["part"]: each["present"] for each in told["parts"]}


def words_of(recipes: Iterable[Recipe]) -> list[str]:
    """Return the words of QEMU's command line, but for the kernel's vsock, which is not here."""
    return [
        word
        for recipe in recipes
        if recipe.where == "QEMU's command line" and "vhost-vsock" not in recipe.lines[0]
        for line in recipe.lines
        for word in shlex.split(line.replace("SIZE", "256M"))
    ]


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


QEMU = ["qemu-system-x86_64", "-nodefaults", "-display", "none"]


def test_a_qemu_that_has_nothing_becomes_reachable(tmp_path: Path, cli: Cli) -> None:
    """All lines for what it lacks, but vsock, are given to another QEMU, which then has it."""
    bare, full = tmp_path / "bare", tmp_path / "fu,ll it"
    for each in (bare, full):
        each.mkdir()
    with qemu(bare, "web01"):
        told = cli.json(f"qemu:{bare}/web01.qmp")
    assert parts(told) == {
        "monitor": True,
        "console": False,
        "vsock": False,
        "SSH on vsock": None,
        "guest agent": False,
        "clipboard": False,
    }
    lines = recipes_for("qemu", Place("web01", str(full / "web01")))
    wanted = words_of(each for each in lines if each.part is not Part.VSOCK)
    with started([*QEMU, "-S", *wanted]) as process:
        wait_for_monitor(full / "web01.qmp", process)
        told = cli.json(f"qemu:{full}/web01.qmp")
    assert (parts(told)["console"], parts(told)["clipboard"]) == (True, True)
    agent = next(each for each in told["parts"] if each["part"] == "guest agent")
    assert agent["detail"].startswith("there is a channel, but")


@pytest.mark.guest
def test_the_lines_for_our_own_vsock_device(
    demo_image: DemoImage, tmp_path: Path, cli: Cli
) -> None:
    """A real guest, started with what is printed and no more, is seen and logged in to."""
    from vmconnect.demo.accelerator import choose_accelerator

    lines = recipes_for("qemu", Place("web01", str(tmp_path / "web01"), 7))
    beside = next(each for each in lines if "process beside" in each.where)
    accelerator = choose_accelerator()
    words = [*QEMU, "-vga", "std", "-m", "256", *accelerator.arguments]
    words += ["-kernel", str(demo_image.kernel), "-initrd", str(demo_image.initrd)]
    words += ["-append", " ".join(("console=tty0", *accelerator.kernel_words))]
    words += words_of(lines)
    command = shlex.split(beside.lines[0])
    assert command[0] == "vmconnect"
    with started([sys.executable, "-m", *command]) as device:
        assert device.stderr is not None
        assert device.stderr.readline().startswith(b"ready")
        with started(words):
            target = f"qemu:{tmp_path}/web01.qmp"
            deadline = soon()
            while True:
                deadline.check("waiting for the guest")
                with contextlib.suppress(AssertionError):
                    told = cli.json(target)
                    if all(parts(told).values()):
                        break
                time.sleep(0.2)
            said = cli(target)
    assert told["lines"] == []
    assert "SSH-2.0-OpenSSH" in said
    assert "qemu-ga" in said
    assert "no " not in said


@pytest.mark.guest
def test_a_machine_that_has_all_but_the_clipboard(demo_machine: DemoMachine, cli: Cli) -> None:
    told = cli.json(demo_machine.name)
    assert parts(told) == {
        "monitor": True,
        "console": True,
        "vsock": True,
        "SSH on vsock": True,
        "guest agent": True,
        "clipboard": False,
    }
    assert {each["part"] for each in told["lines"]} == {"clipboard"}
    assert told["target"] == f"qemu:{demo_machine.qmp_path}"


def test_libvirt_takes_the_lines(cli: Cli) -> None:
    pytest.importorskip("libvirt")
    if shutil.which("libvirtd") is None:
        pytest.skip("needs libvirtd (apt install libvirt-daemon)")
    import libvirt

    lines = recipes_for("libvirt", Place("web01", "/tmp/w&b<01"))
    devices = "\n".join(line for recipe in lines for line in recipe.lines)
    xml = (
        "<domain type='qemu'><name>web01</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        f"<emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>"
    )
    with session_daemon() as (address, _room):
        connection = libvirt.open(address.uri)
        defined = connection.defineXML(xml).XMLDesc()
        connection.close()
        for word in ("org.qemu.guest_agent.0", "qemu-vdagent", "<vsock", "/tmp/w&amp;b&lt;01.vnc"):
            assert word in defined
        with Libvirt(address) as hypervisor:
            (machine,) = hypervisor.look_up("web01", soon())
        hints = hints_for(machine)
    present = {each.part: each.present for each in hints.findings}
    # A machine that is off shows nothing; nobody is told to add what may be there.
    assert set(present.values()) == {True, None, False}
    assert present[Part.AGENT] is None


def test_the_others(tmp_path: Path, cli: Cli) -> None:
    cloud = CloudHypervisorModel({})
    cloud.state = "Running"
    with (
        serving(cloud, tmp_path / "a.ch"),
        serving(FirecrackerModel({}), tmp_path / "b.fc"),
    ):
        for target, word in (
            (f"ch:{tmp_path}/a.ch", "--vsock"),
            (f"fc:{tmp_path}/b.fc", "uds_path"),
        ):
            told = cli.json(target)
            assert parts(told) == {
                "monitor": True,
                "console": None,
                "vsock": False,
                "SSH on vsock": None,
                "guest agent": None,
                "clipboard": None,
            }
            assert word in str(told["lines"])
            assert {each["part"] for each in told["lines"]} == {"vsock", "SSH on vsock"}


def test_without_a_target(cli: Cli) -> None:
    told = cli.json()
    assert [*told] == ["qemu", "libvirt", "cloud-hypervisor", "firecracker", "guest"]
    text = cli("--for", "firecracker")
    assert text.startswith("=== firecracker\n")
    assert "libvirt" not in text


def test_an_address_has_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hints", "vnc://127.0.0.1"]) == 1
    assert "no hypervisor" in capsys.readouterr().err


def test_systemd_reads_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None or shutil.which("sshd") is None:
        pytest.skip("needs systemd-analyze and sshd")
    (tmp_path / "sshd-vsock.socket").write_text(recipes_of.SOCKET_UNIT)
    (tmp_path / "sshd-vsock@.service").write_text(recipes_of.SERVICE_UNIT)
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "sshd-vsock.socket")]
    words.append(str(tmp_path / "sshd-vsock@.service"))
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT)
    assert str(tmp_path) not in result.stderr
