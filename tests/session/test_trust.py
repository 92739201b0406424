"""Trust: host keys pinned to machines."""

import base64
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError, ResourceError
from vmconnect.session.trust import HostKey, TrustStore

UUID = "9f3c5a52-0f0e-4c53-9b2e-0e8f1a6f3f10"
ONE = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + b"1" * 32)
TWO = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + b"2" * 32)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "state" / "known_hosts")


def accept(_key: HostKey) -> bool:
    return True


def refuse(_key: HostKey) -> bool:
    return False


def never(_key: HostKey) -> bool:
    raise AssertionError("nobody may be asked")


def test_first_contact_asks_and_pins(store: TrustStore) -> None:
    with pytest.raises(HostKeyUnknownError, match="--accept-new-host-key"):
        store.check(UUID, ONE, "web01", refuse)
    assert store.pinned(UUID) == []
    store.check(UUID, ONE, "web01", accept)
    assert store.pinned(UUID) == [ONE]
    store.check(UUID, ONE, "web01", never)


def test_a_changed_key_is_refused_with_both_fingerprints(store: TrustStore) -> None:
    store.pin(UUID, ONE)
    with pytest.raises(HostKeyChangedError) as caught:
        store.check(UUID, TWO, "web01", accept)
    text = str(caught.value)
    assert ONE.fingerprint in text
    assert TWO.fingerprint in text
    assert text.startswith("web01: ")
    assert store.pinned(UUID) == [ONE]


def test_a_provisioned_key_is_the_only_one_and_is_not_stored(store: TrustStore) -> None:
    store.check(UUID, ONE, "web01", never, provisioned=ONE)
    with pytest.raises(HostKeyChangedError):
        store.check(UUID, TWO, "web01", accept, provisioned=ONE)
    assert not store.path.exists()


def test_forgetting_leaves_other_machines(store: TrustStore) -> None:
    store.pin(UUID, ONE)
    store.pin("vsock/3", TWO)
    assert store.forget(UUID) == 1
    assert store.forget(UUID) == 0
    assert store.pinned("vsock/3") == [TWO]


def test_the_store_is_private_and_reads_as_known_hosts(store: TrustStore) -> None:
    identity = "vsock-mux/run/a b,c*.sock"
    store.pin(identity, ONE)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.pinned(identity) == [ONE]
    name = store.path.read_text().split()[0]
    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(store.path)], capture_output=True, check=True
    )
    assert base64.b64encode(ONE.blob) in found.stdout


def test_the_fingerprint_is_openssh_s(tmp_path: Path) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    line = file.with_suffix(".pub").read_text()
    told = subprocess.run(["ssh-keygen", "-lf", str(file)], capture_output=True, check=True)
    key = HostKey.from_line(line)
    assert key is not None
    assert key.fingerprint.encode() in told.stdout
    assert line.startswith(str(key))


def test_writers_at_the_same_time_lose_nothing(store: TrustStore) -> None:
    threads = [threading.Thread(target=store.pin, args=(f"machine-{n}", ONE)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.pinned(f"machine-{n}") == [ONE] for n in range(20))
    assert len(os.listdir(store.path.parent)) == 2  # noqa: PTH208  (the store and its lock)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "known_hosts")
    store.path.mkdir()
    with pytest.raises(ResourceError, match="known_hosts"):
        store.pin(UUID, ONE)


@given(st.binary(max_size=400))
def test_a_damaged_store_is_read_for_what_it_holds(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        store = TrustStore(Path(directory) / "known_hosts")
        good = f"\n{UUID} {ONE}\n".encode()
        store.path.write_bytes(data.replace(b"\x1e", b"").replace(b"\x1c", b"") + good)
        assert ONE in store.pinned(UUID)
