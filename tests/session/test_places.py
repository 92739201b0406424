"""Where machines are looked for; nothing is connected to."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmconnect.errors import TargetError
from vmconnect.session.places import hypervisors


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's directories, with nothing in them."""
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    monkeypatch.delenv("VMCONNECT_HYPERVISORS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path / "config"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    yield path
    shutil.rmtree(path)


def names(*, every: bool = False) -> list[str]:
    return [str(each) for each in hypervisors(every=every) if str(each) != "qemu:///system"]


def test_the_runtime_directory_comes_first(home: Path) -> None:
    assert names() == [f"qemu in {home}/vmconnect"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "vmconnect" / "a.fc"))
        others = [f"{kind} in {home}/vmconnect" for kind in ("cloud-hypervisor", "firecracker")]
        assert names()[1:] == others
    (home / "vmconnect" / "a.fc").unlink()
    assert len(names()) == 1
    assert names(every=True)[1:] == others


def test_a_user_s_libvirt_is_found_by_its_socket_or_its_machines(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "libvirt").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "libvirt" / "libvirt-sock"))
        assert names()[1:] == ["qemu:///session"]
    (home / "libvirt" / "libvirt-sock").unlink()
    assert len(names()) == 1
    domains = home / "config" / "libvirt" / "qemu"
    domains.mkdir(parents=True)
    assert len(names()) == 1
    (domains / "web01.xml").touch()  # its daemon has ended, as it does when it is idle
    assert names()[1:] == ["qemu:///session"]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert len(names()) == 1


def test_places_can_be_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = f"{home} /no-such libvirt://kvm7/system qemu+tls://kvm8/session"
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", places)
    assert [str(each) for each in hypervisors()] == [
        f"qemu in {home}",
        "qemu in /no-such",
        "qemu+ssh://kvm7/system",
        "qemu+tls://kvm8/session",
    ]
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", "")
    assert hypervisors() == []


@pytest.mark.parametrize(
    "place",
    ["relative", "vnc://host", "libvirt:///system/web01", "libvirt:///elsewhere", "qemu:/run/a"],
)
def test_other_places_are_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", place)
    with pytest.raises(TargetError) as caught:
        hypervisors()
    assert caught.value.hint
