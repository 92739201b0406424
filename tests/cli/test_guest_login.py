"""Who we are to a guest, by the command line and by all else: real sshd, real qemu-ga."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openssh import new_key
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.direct import Guest
from vmconnect.session import Session, connect
from vmconnect.session.agent_access import open_agent
from vmconnect.session.trust import TrustStore

pytestmark = pytest.mark.guest

WAIT = 60.0
NAME = "logins-1"
PASSWORD = "correct horse"  # noqa: S105 (of a guest that is gone soon)
HASH = (  # openssl passwd -6
    "$6$vmconnecttests$KPiiBT1PZhqpFOL.c5ZPPS2yoS1yn4Pfr9sMvlvatm"
    "woYEbBqN8xnToD1Nyk7nGJkMVQupqUxz/MXaf8BvNKz/"
)
VARIABLE = "VMCONNECT_GUEST_PASSWORD_LOGINS_1"
# Passwords are taken; busybox here has nothing that would set one.
CONFIGURE = f"""
set -e
sed -i -e /^AuthenticationMethods/d -e s/^PasswordAuthentication.*/PasswordAuthentication\\ yes/ \
    /etc/ssh/sshd_config
sed -i 's|^guest:[^:]*:|guest:{HASH}:|' /etc/shadow
/usr/sbin/sshd -t
"""
AUTHORIZED = "/home/guest/.ssh/authorized_keys"


@pytest.fixture(scope="module")
def machine(demo_image: DemoImage) -> Iterator[DemoMachine]:
    """A machine of which nothing is written down, and whose guest takes guest's password."""
    with DemoMachine.start(NAME, image=demo_image) as machine:
        with connect(NAME) as session:
            guest = session.guest(timeout=WAIT, wait=True)
            assert guest.run(["sh", "-c", CONFIGURE]).ok, guest.run(["cat", "/etc/shadow"]).text
        machine.description_path.unlink()
        with open_agent(connect(NAME).machine, WAIT):  # It is up, too.
            pass
        yield machine


@pytest.fixture
def root(machine: DemoMachine, tmp_path: Path) -> Iterator[Guest]:
    """The guest as root, to look behind the curtain."""
    store = TrustStore(tmp_path / "of_root")
    with Session(connect(machine.name).machine, store) as session:
        yield session.guest(user="root", identity_files=[machine.client_key])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known of us, or by us."""
    for variable in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).mkdir()
    (tmp_path / "HOME" / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.session.file_keyring.FileKeyring")
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", str(tmp_path / "keyring"))
    return tmp_path / "HOME"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    return secret_file(tmp_path / "password", PASSWORD)


def secret_file(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "vmconnect", *map(str, words)]


def run(*words: str | Path, fds: tuple[int, ...] = ()) -> tuple[int, str, str]:
    result = subprocess.run(
        command(*words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        pass_fds=fds,
    )
    assert PASSWORD not in result.stderr
    return result.returncode, result.stdout, result.stderr


def whoami(*options: str | Path, user: str = "guest", fds: tuple[int, ...] = ()) -> tuple[int, str]:
    """Return the exit code, and how we came in, or why not."""
    code, out, err = run("exec", "-v", "-n", "-l", user, *options, NAME, "--", "id", "-un", fds=fds)
    assert out == (f"{user}\n" if code == 0 else "")
    return code, err.strip().removeprefix(f"vmconnect: {NAME}: ")


def by(method: str, user: str = "guest") -> tuple[int, str]:
    return 0, f"logged in as {user} by {method}"


@contextlib.contextmanager
def admitted(root: Guest, line: str) -> Iterator[None]:
    """Let a key in for the time of a block."""
    assert root.run(
        ["sh", "-c", f"cp {AUTHORIZED} /tmp/was; cat >>{AUTHORIZED}"], stdin=line.encode()
    ).ok
    try:
        yield
    finally:
        assert root.run(["cp", "/tmp/was", AUTHORIZED]).ok


# Passwords.


def test_a_password_that_is_named(machine: DemoMachine, password_file: Path) -> None:
    assert whoami("--password-file", password_file) == by("password")
    reader, writer = os.pipe()
    os.write(writer, f"{PASSWORD}\n".encode())
    assert whoami("--password-fd", str(reader), fds=(reader,)) == by("password")
    os.close(reader)
    os.close(writer)


def test_a_wrong_one_is_the_last_word(
    machine: DemoMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)
    wrong = secret_file(tmp_path / "wrong", "not this")
    code, said = whoami("--password-file", wrong)
    assert code == 255
    assert said.startswith("login as guest refused; tried a password (")


def test_the_environment_has_it_by_the_machine_s_name(
    machine: DemoMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("VMCONNECT_GUEST_PASSWORD_LOGINS_2", "VMCONNECT_CONSOLE_PASSWORD_LOGINS_1"):
        monkeypatch.setenv(other, PASSWORD)
    assert whoami() == by("a key put in by the guest agent")
    monkeypatch.setenv(VARIABLE, PASSWORD)
    assert whoami() == by("password")
    monkeypatch.setenv(VARIABLE, "wrong")
    uuid = machine.uuid.upper().replace("-", "_")
    monkeypatch.setenv(f"VMCONNECT_GUEST_PASSWORD_{uuid}", PASSWORD)
    assert whoami() == by("password")


def test_the_keyring_has_it_for_the_machine_and_the_user(
    machine: DemoMachine, password_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_it = ("credential", "set", NAME, "guest", "-l", "guest", "--password-file")
    assert run(*set_it, password_file) == (0, "", "")
    assert PASSWORD in (tmp_path / "keyring").read_text()
    assert PASSWORD not in (tmp_path / "XDG_STATE_HOME/vmconnect/credentials").read_text()
    code, out, _ = run("credential", "list")
    assert (code, out.splitlines()[1].split()) == (0, [NAME, "guest", "guest", machine.uuid])
    assert whoami() == by("password")
    # Whom there is a password of is whom we are.
    code, out, err = run("exec", "-n", NAME, "--", "id", "-un")
    assert (code, out, err) == (0, "guest\n", "")
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", "")
    assert whoami() == by("a key put in by the guest agent")
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", str(tmp_path / "keyring"))
    assert run("credential", "forget", NAME, "guest") == (0, "", "")
    assert PASSWORD not in (tmp_path / "keyring").read_text()
    code, _, err = run("credential", "forget", NAME, "guest")
    assert (code, "no guest password" in err) == (1, True)


# Keys.


def test_a_key_with_a_passphrase(
    machine: DemoMachine, root: Guest, tmp_path: Path, password_file: Path
) -> None:
    key = tmp_path / "key"
    with admitted(root, new_key(key, "open sesame")):
        passphrase = secret_file(tmp_path / "passphrase", "open sesame")
        assert whoami("-i", key, "--password-file", passphrase) == by(f"key {key}")
        code, said = whoami("-i", key, "--password-file", password_file)
        assert (code, "which the passphrase does not open" in said) == (255, True)
        code, said = whoami("-i", key)
        assert (code, "ssh-add" in said) == (255, True)


def test_a_passphrase_is_not_shown_to_the_guest(machine: DemoMachine, tmp_path: Path) -> None:
    """With -i the secret is the key's alone: here it would have been the right password."""
    key = tmp_path / "key"
    new_key(key, PASSWORD)
    passphrase = secret_file(tmp_path / "passphrase", PASSWORD)
    code, said = whoami("-i", key, "--password-file", passphrase)
    assert (code, said.partition(" (")[0]) == (255, f"login as guest refused; tried key {key}")


@contextlib.contextmanager
def ssh_agent(*keys: Path) -> Iterator[str]:
    """A real ssh-agent with keys; gives its socket."""
    socket = keys[0].with_name("agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        deadline = Deadline(WAIT)
        while not socket.exists():
            deadline.check("waiting for ssh-agent")
            time.sleep(0.01)
        env = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=env)
        yield str(socket)
    finally:
        process.terminate()
        process.wait()


def test_the_ssh_agent_s_key(
    machine: DemoMachine, root: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with admitted(root, new_key(tmp_path / "k")), ssh_agent(tmp_path / "k") as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        assert whoami() == by("agent key ssh-ed25519")


def test_more_keys_than_the_server_takes_leave_the_rest_to_try(
    machine: DemoMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [tmp_path / f"k{number}" for number in range(8)]
    for key in keys:
        new_key(key)
    with ssh_agent(*keys) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        assert whoami() == by("a key put in by the guest agent")
        monkeypatch.setenv(VARIABLE, PASSWORD)
        assert whoami() == by("password")
        code, said = whoami(user="nobody-there")
        assert code == 255
        assert said.count("agent key") == 6
        assert "a password, the guest agent (" in said


def test_two_proofs(machine: DemoMachine, root: Guest, tmp_path: Path) -> None:
    """A server that wants a key and a password besides."""
    assert root.run(
        ["sh", "-c", "cp /etc/ssh/sshd_config /tmp/conf; cat >>/etc/ssh/sshd_config"],
        stdin=b"\nMatch User guest\n AuthenticationMethods publickey,password\n",
    ).ok
    try:
        with admitted(root, new_key(tmp_path / "HOME/.ssh/id_ed25519")):
            code, said = whoami()
            assert (code, "tried key" in said) == (255, True)
            os.environ[VARIABLE] = PASSWORD
            try:
                code, said = whoami()
            finally:
                del os.environ[VARIABLE]
        assert (code, said.rpartition("ed25519")[2]) == (0, " and password")
    finally:
        assert root.run(["cp", "/tmp/conf", "/etc/ssh/sshd_config"]).ok


# The guest agent.


def test_with_an_agent_and_nothing_else(machine: DemoMachine, root: Guest, home: Path) -> None:
    before = root.run(["cat", AUTHORIZED]).text
    assert whoami() == by("a key put in by the guest agent")
    assert root.run(["cat", AUTHORIZED]).text == before
    (line,) = Path(os.environ["XDG_STATE_HOME"], "vmconnect/known_hosts").read_text().splitlines()
    words = line.split()
    assert words[0] == machine.uuid
    assert " ".join(words[1:3]) == machine.image.host_key
    assert words[3:5] == [NAME, "guest-agent"]
    # As root, who says so.
    code, said = whoami(user="root")
    assert (code, said) == by("a key put in by the guest agent", "root")
    code, _, err = run("exec", "-n", NAME, "--", "true")
    assert (code, "name a user with -l" in err) == (255, True)


def test_what_is_in_the_guest_meanwhile(machine: DemoMachine, root: Guest) -> None:
    from vmconnect.session.agent_access import temporary_key

    found = connect(NAME).machine
    greeting = "SSH-2.0-OpenSSH_9.2p1 Debian"
    before = root.run(["cat", AUTHORIZED]).text
    with temporary_key(found, "guest", greeting, Deadline(WAIT)) as key:
        added = root.run(["cat", AUTHORIZED]).text.removeprefix(before).strip()
        assert key.get_base64() in added
        assert added.startswith('expiry-time="20')
        assert " vmconnect " in added
        assert " expires=20" in added
        mode = root.run(["stat", "-c", "%a %U", AUTHORIZED]).text
        assert mode == "600 guest\n"
    assert root.run(["cat", AUTHORIZED]).text == before


def test_an_expired_key_lets_nobody_in(machine: DemoMachine, root: Guest) -> None:
    """The option is one that this sshd obeys."""
    code = 's/expiry-time="[0-9]*Z/expiry-time="20200101000000Z/'
    watch = f"sed -i '{code}' {AUTHORIZED}; cat {AUTHORIZED}"
    from vmconnect.direct.authentication import Authentication

    done = []
    original = Authentication._by_key

    def late(self: Authentication, description: str, key: object) -> bool:
        if "guest agent" in description:
            done.append(root.run(["sh", "-c", watch]).text)
        return original(self, description, key)  # type: ignore[arg-type]

    with admitted(root, ""), pytest.MonkeyPatch.context() as patch, connect(NAME) as session:
        patch.setattr(Authentication, "_by_key", late)
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        with pytest.raises(Exception, match="tried a key put in by the guest agent"):
            session.guest(user="guest")
    assert "20200101000000Z" in done[0]


HOLDER = """
import sys, time
from vmconnect.deadline import Deadline
from vmconnect.session import connect
from vmconnect.session.agent_access import temporary_key
with temporary_key(connect(sys.argv[1]).machine, "guest", sys.argv[2], Deadline(30)):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_that_ends_in_between(
    machine: DemoMachine, root: Guest, number: signal.Signals
) -> None:
    before = root.run(["cat", AUTHORIZED]).text
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, NAME, "SSH-2.0-OpenSSH_9.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    left = root.run(["cat", AUTHORIZED]).text
    # Only what cannot tidy up leaves something, and the next use takes it away.
    assert (left == before) == (number is signal.SIGINT)
    assert whoami() == by("a key put in by the guest agent")
    assert root.run(["cat", AUTHORIZED]).text == before


def test_another_s_key_is_left_alone_until_its_time_is_over(
    machine: DemoMachine, root: Guest
) -> None:
    other = "00000000-0000-4000-8000-000000000000"
    live = f"ssh-ed25519 AAAA1 vmconnect {other} expires=2999-01-01T00:00:00Z"
    over = f"ssh-ed25519 AAAA2 vmconnect {other} expires=2020-01-01T00:00:00Z"
    alike = "ssh-ed25519 AAAA3 vmconnect is great"
    with admitted(root, f"{live}\n{over}\n{alike}\n"):
        assert whoami() == by("a key put in by the guest agent")
        kept = root.run(["cat", AUTHORIZED]).text
    assert (live in kept, over in kept, alike in kept) == (True, False, True)


def test_many_at_once_come_in_one_after_the_other(machine: DemoMachine, root: Guest) -> None:
    before = root.run(["cat", AUTHORIZED]).text
    words = command("exec", "-n", "-l", "guest", NAME, "--", "id", "-un")
    processes = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
    ]
    assert {each.communicate(timeout=WAIT) for each in processes} == {(b"guest\n", b"")}
    assert root.run(["cat", AUTHORIZED]).text == before


def test_a_guest_whose_agent_refuses_is_asked_for_a_password_at_last(machine: DemoMachine) -> None:
    """A person is asked when nothing else has given an answer, and not before."""
    child, terminal = pty.fork()
    if child == 0:
        words = command("exec", "-n", "-l", "nobody-there", NAME, "--", "true")
        os.execv(words[0], words)  # noqa: S606
    shown = b""
    with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
        while b"password: " not in shown and (data := os.read(terminal, 1000)):
            shown += data
        assert b"nobody-there@logins-1's password: " in shown
        os.write(terminal, b"guess\n")
        while data := os.read(terminal, 1000):
            shown += data
    os.close(terminal)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 255
    assert b"guess" not in shown
    assert b"a password (" in shown


def test_the_store_of_another_is_refused_with_both_fingerprints(
    machine: DemoMachine, tmp_path: Path
) -> None:
    """A first key is the guest agent's word; another one is refused, and told how to go on."""
    other = new_key(tmp_path / "other").split()
    store = Path(os.environ["XDG_STATE_HOME"], "vmconnect/known_hosts")
    store.parent.mkdir(mode=0o700)
    store.write_text(f"{machine.uuid} {other[0]} {other[1]}\n")
    code, said = whoami()
    assert (code, said.count("SHA256:")) == (255, 2)
    assert f"vmconnect trust forget {machine.uuid}" in said
    code, out, _ = run("trust", "forget", machine.uuid)
    assert (code, "no longer trusted" in out) == (0, True)
    assert whoami()[0] == 0
