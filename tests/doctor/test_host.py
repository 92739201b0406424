"""This host: what is there, and what is not, in trees of the tests' own where it cannot be here.

The kernel's devices and modules are files in a directory: this machine has no KVM and no vsock, and
no test opens a socket of the kernel's vsock.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.hypervisor.libvirtd import system_daemon
from tests.hypervisor.rig import qemu
from vmconnect.broker import wire
from vmconnect.broker.ask import ask
from vmconnect.broker.start import start
from vmconnect.deadline import Deadline
from vmconnect.doctor import HOST, Host, examine
from vmconnect.doctor.check import Outcome, Verdict
from vmconnect.paths import private_directory, runtime_directory

ROOT = Path(__file__).parents[2]


def look(name: str, root: Path = Path("/")) -> Verdict:
    """Try one check of this host."""
    (check,) = (each for each in HOST if each.name == name)
    (finding,) = examine([type(check)(check.name, (), check.tries, check.trial)], Host(root))
    return Verdict(finding.outcome, finding.account, finding.remedy)


@pytest.fixture
def tree(directory: Path) -> Path:
    """A host's root directory, with a processor that has virtualisation."""
    for name in ("dev", "proc", "etc", "sys/module"):
        (directory / name).mkdir(parents=True)
    (directory / "proc" / "cpuinfo").write_text("flags : fpu vmx sse\n")
    directory.chmod(0o755)
    return directory


def test_this_very_host(tmp_path: Path) -> None:
    found = {finding.check: finding for finding in examine(HOST, Host())}
    assert list(found) == [check.name for check in HOST]
    assert found["Python"].outcome is Outcome.OK
    assert found["QEMU"].account.startswith("QEMU emulator version")
    assert found["runtime directory"].account.endswith("mode 700")
    assert found["extras"].outcome is Outcome.OK
    assert found["journal"].outcome is Outcome.OK
    for finding in found.values():
        assert finding.outcome is not Outcome.BROKEN, finding
        assert finding.remedy or finding.outcome is not Outcome.WARNING


# Programs and packages.


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import PackageNotFoundError

    def none(package: str) -> str:
        if package == "av":
            return "3.0"
        if package == "pygame-ce":
            return "2.5.8"
        raise PackageNotFoundError

    monkeypatch.setattr("vmconnect.doctor.host.version", none)
    monkeypatch.setattr("vmconnect.doctor.host.find_spec", lambda _name: None)
    found = look("extras")
    assert found.outcome is Outcome.WARNING
    assert "av 3.0 is too old" in found.account
    assert "libvirt-python is missing" in found.account
    assert found.remedy == "pip install 'vmconnect[video,libvirt]'"
    assert "gcc" in str(look("decoders").remedy)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look("QEMU").remedy == "apt install qemu-system-x86"


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo cannot load libfoo >&2; exit 127", "cannot load libfoo"), ("exec sleep 60", "timed")],
)
def test_a_qemu_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: str
) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    from vmconnect.doctor.host import try_qemu

    found = try_qemu(Host(), Deadline(0.5))
    assert found.outcome is Outcome.BROKEN
    assert words in found.account


def test_a_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    assert look("desktop").account == "DISPLAY is :7"
    monkeypatch.delenv("DISPLAY")
    assert look("desktop").outcome is Outcome.WARNING


# The kernel's devices.


def test_kvm(tree: Path) -> None:
    assert "no /dev/kvm" in look("KVM", tree).account
    assert "modprobe kvm_intel" in str(look("KVM", tree).remedy)
    (tree / "dev" / "kvm").touch(0o600)
    assert look("KVM", tree) == Verdict(Outcome.OK, "usable")
    (tree / "proc" / "cpuinfo").write_text("flags : fpu sse\n")
    assert "no virtualisation" in look("KVM", tree).account


def test_vhost_vsock(tree: Path) -> None:
    found = look("vhost-vsock", tree)
    assert "its module is not loaded" in found.account
    assert "modprobe vhost_vsock" in str(found.remedy)
    assert "vmconnect vsock-device" in str(found.remedy)
    (tree / "proc" / "modules").write_text("vhost_vsock_x 1 0\nvhost 2 1 vhost_vsock,\n")
    assert "not loaded" in look("vhost-vsock", tree).account
    (tree / "proc" / "modules").write_text("vhost 2 1 vhost_vsock,\nvhost_vsock 24576 0 - Live\n")
    assert "its module is loaded" in look("vhost-vsock", tree).account
    (tree / "proc" / "modules").unlink()
    (tree / "sys" / "module" / "vhost_vsock").mkdir()
    assert "its module is loaded" in look("vhost-vsock", tree).account
    (tree / "dev" / "vhost-vsock").touch(0o600)
    assert look("vhost-vsock", tree) == Verdict(Outcome.OK, "usable")


AS_NOBODY = """
import os, sys
import grp, pwd
from pathlib import Path
from vmconnect.broker import wire
from vmconnect.broker.ask import ask
from vmconnect.broker.start import start
from vmconnect.deadline import Deadline
from vmconnect.doctor import HOST, Host
import vmconnect.hypervisor.sockets
os.setgroups({groups}), os.setgid(65534), os.setuid(65534)
for check in HOST:
    if check.name in {names}:
        verdict = check.trial(Host(Path(sys.argv[1])), Deadline(5))
        print(verdict.outcome.value, verdict.account, verdict.remedy, sep=" | ")
"""


def as_nobody(tree: Path, names: list[str], groups: list[int]) -> list[str]:
    """Try checks as the user nobody, in groups given by number."""
    script = AS_NOBODY.format(names=names, groups=groups)
    return subprocess.run(
        [sys.executable, "-c", script, tree], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_not_use_the_devices_is_told_which_group_may(tree: Path) -> None:
    for name in ("kvm", "vhost-vsock"):
        (tree / "dev" / name).touch()
        (tree / "dev" / name).chmod(0o660)
        shutil.chown(tree / "dev" / name, group="adm")
    kvm, vsock = as_nobody(tree, ["KVM", "vhost-vsock"], [])
    assert kvm.startswith("warning | you may not use /dev/kvm")
    assert vsock.startswith("warning | you may not use /dev/vhost-vsock")
    for line in (kvm, vsock):
        assert "is open to the group adm: join it, and log in anew" in line
        assert f"{tree}/dev/" in line
    (tree / "dev" / "kvm").chmod(0o600)
    (line,) = as_nobody(tree, ["KVM"], [])
    assert "open to the user root only" in line
    assert "chgrp kvm" in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("members", "groups", "line"),
    [
        ("", [], "warning | you are not in kvm, libvirt | usermod -aG kvm,libvirt nobody"),
        ("nobody", [], "warning | you have joined kvm, libvirt since you logged in"),
        ("x,nobody", [994], "warning | you have joined libvirt since you logged in"),
        ("", [994, 993], "ok | you are in kvm, libvirt"),
    ],
)
def test_groups(tree: Path, members: str, groups: list[int], line: str) -> None:
    text = f"root:x:0:\nkvm:x:994:{members}\nlibvirt:x:993:{members}\nbroken\n"
    (tree / "etc" / "group").write_text(text.replace("broken\n", ""))
    (told,) = as_nobody(tree, ["groups"], groups)
    assert told.startswith(line)


# Where things are kept.


def test_a_runtime_directory_that_others_may_write_to(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    (directory / "vmconnect").mkdir()
    (directory / "vmconnect").chmod(0o777)
    found = look("runtime directory")
    assert found.outcome is Outcome.BROKEN
    assert "open to other users" in found.account
    assert found.remedy == f"chmod 700 {directory}/vmconnect"
    long = directory / ("x" * 60)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert "little room for names" in look("runtime directory").account
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert "XDG_RUNTIME_DIR is not set" in look("runtime directory").account


def test_state_settings_and_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = tmp_path / "state", tmp_path / "config"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    assert "made when it is needed" in look("state directory").account
    assert look("settings").outcome is Outcome.NOT_TRIED
    assert look("journal").outcome is Outcome.OK
    assert not state.exists()
    (state / "vmconnect").mkdir(parents=True, mode=0o700)
    assert look("state directory").account.endswith("mode 700")
    (state / "vmconnect" / "journal.jsonl").mkdir()
    assert "cannot be written to" in look("journal").account
    (config / "vmconnect").mkdir(parents=True)
    settings = config / "vmconnect" / "settings.toml"
    settings.write_text("[journal]\nenabled = false\n")
    assert look("settings").account.endswith("settings.toml: journal")
    assert look("journal").account == "it is turned off"
    settings.write_text("[journal")
    assert look("settings").outcome is Outcome.BROKEN
    (state / "vmconnect").chmod(0o777)
    assert look("state directory").remedy == f"chmod 700 {state}/vmconnect"


# Hypervisors.


@pytest.fixture
def only_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    return directory


def test_machines(only_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.hypervisor.qemu.qemu._QUERY_TIMEOUT", 0.3)
    assert "none runs" in look("machines").account
    with qemu(only_place, "a"):
        assert look("machines").account == "1 machine answers: 1 of qemu"
        with qemu(only_place, "b"):
            assert look("machines").account == "2 machines answer: 2 of qemu"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(only_place / "c.qmp"))
            silent.listen()
            found = look("machines")
            assert found.outcome is Outcome.WARNING
            assert found.account == "these do not answer: c"
            assert found.remedy == "vmconnect doctor c"
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", f"{only_place}/none")
    assert "No such file" in look("machines").account


def test_libvirt_that_is_off(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vmconnect.doctor.places.libvirt_sockets", lambda _path: [directory / "sock"]
    )
    found = look("libvirt")
    assert (found.outcome, found.account) == (
        Outcome.NOT_TRIED,
        f"no daemon listens in {directory}",
    )
    # A socket that its daemon left behind; libvirt itself looks in its own place.
    (directory / "sock").touch()
    found = look("libvirt")
    assert found.outcome is Outcome.BROKEN
    assert "qemu:///system" in found.account
    assert "is libvirtd or virtqemud running?" in str(found.remedy)
    monkeypatch.setitem(sys.modules, "libvirt", None)
    found = look("libvirt")
    assert found.outcome is Outcome.WARNING
    assert "libvirt-python is not installed" in found.account
    assert "pip install" in str(found.remedy)


@pytest.mark.skipif(os.getuid() != 0, reason="a privileged libvirtd needs root")
def test_libvirt_that_is_well() -> None:
    with system_daemon() as (_address, room):
        Path("/run/libvirt").mkdir(exist_ok=True)
        script = f'mount --bind {room}/run /run/libvirt && exec "$@"'
        result = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
                *(sys.executable, "-m", "vmconnect", "doctor", "--json"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    told = {each["check"]: each for each in json.loads(result.stdout)["checks"]}
    assert told["libvirt"]["account"] == "qemu:///system: 0 machines"
    assert told["libvirt"]["outcome"] == "ok"


# The broker.


def test_no_broker(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("VMCONNECT_BROKER", "0")
    assert look("broker").outcome is Outcome.NOT_TRIED
    monkeypatch.delenv("VMCONNECT_BROKER")
    assert look("broker") == Verdict(Outcome.OK, "none runs; vmconnect exec starts one")


def test_a_broker_that_runs_and_one_that_hangs(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("VMCONNECT_BROKER", raising=False)
    start()
    deadline = Deadline(60)
    while (connection := wire.connect(1.0)) is None:
        deadline.check("waiting for the broker")
    process, _ = wire.peer(connection)
    connection.close()
    try:
        assert look("broker").account == f"process {process} keeps 0 sessions open"
        os.kill(process, signal.SIGSTOP)
        hangs = look("broker")
        assert hangs.outcome is Outcome.WARNING
        assert hangs.remedy == f"kill {process}; the next command starts another"
    finally:
        os.kill(process, signal.SIGCONT)
        list(ask(wire.STOP))


def test_a_broker_of_another_version(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("VMCONNECT_BROKER", raising=False)
    path = Path(private_directory(runtime_directory()), "broker.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def refuse() -> None:
            for _ in range(2):  # who looks for the process, and who asks
                connection, _address = listener.accept()
                with connection:
                    if connection.recv(wire.LIMIT_BYTES):
                        connection.send(wire.RETIRED)

        thread = threading.Thread(target=refuse)
        thread.start()
        found = look("broker")
        thread.join()
    assert found.outcome is Outcome.WARNING
    assert found.account == f"process {os.getpid()} is of another version of vmconnect"
