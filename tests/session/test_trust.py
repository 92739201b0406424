"""Trust: host keys pinned to machines."""

import base64
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError, ResourceError
from vmconnect.session.key_store import Origin
from vmconnect.session.pinned import named_by
from vmconnect.session.trust import HostKey, TrustStore

UUID = "9f3c5a52-0f0e-4c53-9b2e-0e8f1a6f3f10"
ONE = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + b"1" * 32)
THREE = HostKey("ecdsa-sha2-nistp256", b"3" * 32)
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


def test_a_changed_key_s_error_says_how_to_go_on(store: TrustStore) -> None:
    store.pin(UUID, ONE)
    with pytest.raises(HostKeyChangedError, match=f"vmconnect trust forget {UUID}"):
        store.check(UUID, TWO, "web01", accept)
    # What whoever started the machine wrote down is not forgotten by that.
    with pytest.raises(HostKeyChangedError) as caught:
        store.check(UUID, TWO, "web01", accept, provisioned=ONE)
    assert "trust forget" not in str(caught.value)


def test_what_the_machine_tells_is_pinned_without_a_question(store: TrustStore) -> None:
    store.check(UUID, ONE, "web01", never, vouched=lambda: [ONE, TWO])
    assert store.pinned(UUID) == [ONE, TWO]
    assert {pin.origin for pin in store.pins()} == {Origin.AGENT}

    def asked_again() -> list[HostKey]:
        raise AssertionError("it is known")

    store.check(UUID, TWO, "web01", never, vouched=asked_again)
    with pytest.raises(HostKeyChangedError):
        store.check(UUID, THREE, "web01", accept, vouched=asked_again)


def test_a_server_that_shows_another_than_the_machine_tells(store: TrustStore) -> None:
    with pytest.raises(HostKeyChangedError) as caught:
        store.check(UUID, THREE, "web01", accept, vouched=lambda: [ONE, TWO])
    for key in (ONE, TWO, THREE):
        assert key.fingerprint in str(caught.value)
    assert store.pins() == []


def test_a_machine_that_tells_nothing_leaves_it_to_who_uses_it(store: TrustStore) -> None:
    with pytest.raises(HostKeyUnknownError):
        store.check(UUID, ONE, "web01", refuse, vouched=list)
    store.check(UUID, ONE, "web01", accept, vouched=list)
    assert [pin.origin for pin in store.pins()] == [Origin.ACCEPTED]


def test_a_pin_says_whose_it_is_and_since_when(store: TrustStore) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    store.pin(UUID, ONE, machine="web 01\u2603", origin=Origin.ADDED)
    (pin,) = store.pins()
    assert (pin.identity, pin.key, pin.machine) == (UUID, ONE, "web 01\u2603")
    assert pin.origin is Origin.ADDED
    assert pin.since is not None
    assert before <= pin.since <= datetime.now(UTC)
    store.pin(UUID, ONE, machine="other", origin=Origin.ACCEPTED)
    assert store.pins() == [pin]


def test_others_lines_stay_as_they_are(store: TrustStore) -> None:
    lines = [
        "# a comment",
        f"@revoked * {TWO}",
        f"|1|abc|def {ONE}",
        f"host,10.0.0.1 {ONE} ann@host",
        f"{UUID} {ONE}",
        "senseless",
        f"{UUID} ssh-rsa !!!",
    ]
    store.path.parent.mkdir(mode=0o700)
    store.path.write_text("".join(f"{line}\n" for line in lines))
    assert store.pinned(UUID) == [ONE]
    assert all(pin.origin is None for pin in store.pins())
    store.pin("vsock/3", TWO)
    assert store.forget(UUID) == 1
    left = store.path.read_text().splitlines()
    assert left[:-1] == [line for line in lines if line != f"{UUID} {ONE}"]
    assert left[-1].startswith(f"vsock/3 {TWO} vsock/3 accepted 2")


@given(identity=st.text(min_size=1, max_size=30), machine=st.text(min_size=1, max_size=30))
def test_names_come_back_as_they_were(identity: str, machine: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        store = TrustStore(Path(directory) / "known_hosts")
        store.pin(identity, ONE, machine=machine)
        (pin,) = store.pins()
        assert (pin.identity, pin.machine) == (identity, machine)
        assert named_by(identity)(pin)
        assert len(store.path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (UUID, True),
        (UUID.upper(), True),
        (UUID.replace("-", ""), True),
        ("web01", True),
        ("web*", True),
        ("9f3c*", True),
        ("*", True),
        ("web", False),
        ("db*", False),
        ("WEB01", False),
        ("", False),
    ],
)
def test_what_names_a_key(store: TrustStore, text: str, named: bool) -> None:
    store.pin(UUID, ONE, machine="web01")
    (pin,) = store.pins()
    assert named_by(text)(pin) == named


@pytest.mark.parametrize("kind", [["ed25519"], ["ecdsa", "-b", "384"], ["rsa", "-b", "2048"]])
def test_a_key_is_described_as_ssh_keygen_does(tmp_path: Path, kind: list[str]) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", str(file)], check=True)
    told = subprocess.run(
        ["ssh-keygen", "-lf", str(file)], capture_output=True, check=True, text=True
    ).stdout.split()
    key = HostKey.from_line(file.with_suffix(".pub").read_text())
    assert key is not None
    assert [str(key.bits), key.fingerprint, f"({key.algorithm})"] == [*told[:2], told[-1]]


@given(kind=st.sampled_from(["ssh-rsa", "x", "ecdsa-sha2-nistp521", "@"]), blob=st.binary())
def test_any_blob_has_a_size(kind: str, blob: bytes) -> None:
    assert HostKey(kind, blob).bits >= 0


WRITER = """
import sys
from pathlib import Path
from vmconnect.session.trust import HostKey, TrustStore
store = TrustStore(Path(sys.argv[1]))
for number in range(25):
    store.pin(f"{sys.argv[2]}-{number}", HostKey("ssh-ed25519", b"x"), machine="m")
    if number % 5 == 4:
        store.forget(f"{sys.argv[2]}-{number}")
"""


def test_processes_at_the_same_time_lose_nothing(store: TrustStore) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.path), name]) for name in "abcd"
    ]
    for process in processes:
        assert process.wait(timeout=60) == 0
    expected = {f"{name}-{number}" for name in "abcd" for number in range(25) if number % 5 != 4}
    assert {pin.identity for pin in store.pins()} == expected
    assert len(store.pins()) == len(expected)
    assert store.path.stat().st_mode & 0o777 == 0o600


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
