"""Who is the broker: one at a time, also after one that was killed."""

import socket
import stat
from pathlib import Path

import pytest

from vmconnect.broker.claim import Claim
from vmconnect.broker.wire import socket_path
from vmconnect.errors import ResourceError


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path / "vmconnect"


def taken() -> Claim:
    claim = Claim.take()
    assert claim is not None
    return claim


def test_there_is_one_and_then_another(room: Path) -> None:
    first = taken()
    assert Claim.take() is None
    first.release()
    assert list(room.iterdir()) == []
    second = taken()
    assert [each.holds for each in (first, second)] == [False, True]
    second.release()


def test_the_socket_is_private(room: Path) -> None:
    claim = taken()
    assert stat.S_IMODE(Path(socket_path()).stat().st_mode) == 0o600
    assert stat.S_IMODE(room.stat().st_mode) == 0o700
    claim.release()


def test_what_a_killed_broker_left_is_replaced(room: Path) -> None:
    room.mkdir(mode=0o700)
    (room / ".broker.lock").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(socket_path())
    claim = taken()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(socket_path())
    claim.release()


def test_a_socket_that_is_gone_or_another_s_is_noticed_and_left(room: Path) -> None:
    claim = taken()
    Path(socket_path()).unlink()
    assert not claim.holds
    Path(socket_path()).touch()
    assert not claim.holds
    claim.release()
    assert [path.name for path in room.iterdir()] == ["broker.sock"]


def test_a_path_that_is_too_long_is_told(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = room.parent / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ResourceError, match="too long"):
        Claim.take()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(room.parent))
    taken().release()
