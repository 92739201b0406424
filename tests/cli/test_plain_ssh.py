"""Plain ssh and what is made of it, through `vmconnect proxy` and by `vmconnect ssh-config`."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.direct.forward.rig import WAIT, PlayedGuest, played_guest
from tests.streams.far_host import far_host
from vmconnect.demo import DemoMachine

BIN = Path(sys.executable).parent
VMCONNECT = str(BIN / "vmconnect")
USER = getpass.getuser()


@pytest.fixture(scope="module")
def played() -> Iterator[PlayedGuest]:
    with played_guest() as guest:
        yield guest


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of our own, in which nothing is pinned."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[Any]:
    given: dict[str, Any] = {"capture_output": True, "text": True, "timeout": WAIT, **options}
    check = given.pop("check", False)
    return subprocess.run([*map(str, words)], check=check, **given)


def config(target: str, path: Path, *lines: str, called: str = "box", fdpass: bool = True) -> Path:
    """Write the lines that are printed for a target, for a host that is called so."""
    printed = run(VMCONNECT, "ssh-config", target)
    assert printed.stderr == ""
    first, *rest = printed.stdout.splitlines()
    assert first.startswith("Host ")
    if not fdpass:
        rest = [each.replace(" --fdpass", "") for each in rest if "Fdpass" not in each]
        assert not any("fdpass" in each for each in rest)
    path.write_text("\n".join([f"Host {called}", *rest, *lines]) + "\n")
    return path


@pytest.fixture(params=["handed over", "joined"])
def box(request: pytest.FixtureRequest, played: PlayedGuest, tmp_path: Path) -> list[str]:
    """How ssh is called for the played guest, whose key is pinned."""
    trusted = run(VMCONNECT, "trust", "add", "--yes", played.target)
    assert trusted.returncode == 0, trusted.stderr
    path = config(
        played.target,
        tmp_path / "config",
        f"User {USER}",
        f"IdentityFile {played.key}",
        "IdentitiesOnly yes",
        fdpass=request.param == "handed over",
    )
    return ["-F", str(path)]


def test_ssh(box: list[str]) -> None:
    result = run("ssh", *box, "box", "cat; echo err >&2; exit 3", input="what is said\n")
    assert (result.returncode, result.stdout, result.stderr) == (3, "what is said\n", "err\n")


def test_much_through_ssh(box: list[str]) -> None:
    data = os.urandom(8 << 20)
    result = run("ssh", *box, "box", "cat", input=data, text=False)
    assert result.stdout == data


def test_scp_and_sftp(box: list[str], tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    (tmp_path / "a file").write_bytes(data)
    assert run("scp", *box, tmp_path / "a file", f"box:{tmp_path}/copied").stderr == ""
    assert (tmp_path / "copied").read_bytes() == data
    batch = f"get {tmp_path}/copied {tmp_path}/fetched\n"
    assert run("sftp", *box, "-q", "-b", "-", "box", input=batch).returncode == 0
    assert (tmp_path / "fetched").read_bytes() == data


def test_rsync(box: list[str], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for number in range(50):
        (tree / "deep" / f"file {number}").write_bytes(os.urandom(number * 100))
    result = run("rsync", "-a", "-e", f"ssh {' '.join(box)}", f"{tree}/", f"box:{tmp_path}/synced/")
    assert (result.returncode, result.stderr) == (0, "")
    assert run("diff", "-r", tree, tmp_path / "synced").returncode == 0


def test_git_clone(box: list[str], tmp_path: Path) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    run("git", "init", "-q", origin, check=True)
    (origin / "file").write_text("text")
    run("git", "-C", origin, "add", "file", check=True)
    run("git", "-C", origin, *who, "commit", "-qm", "first", check=True)
    environment = {**os.environ, "GIT_SSH_COMMAND": f"ssh {' '.join(box)}"}
    result = run("git", "clone", "-q", f"box:{origin}", clone, env=environment)
    assert result.returncode == 0, result.stderr
    assert (clone / "file").read_text() == "text"
    run("git", "-C", clone, *who, "commit", "-qm", "second", "--allow-empty", check=True)
    pushed = run(
        "git", "-C", clone, "push", "-q", "origin", "HEAD:refs/heads/other", env=environment
    )
    assert pushed.returncode == 0, pushed.stderr


def test_a_key_that_is_not_pinned_is_not_trusted(played: PlayedGuest, tmp_path: Path) -> None:
    path = config(played.target, tmp_path / "config", f"IdentityFile {played.key}")
    result = run("ssh", "-F", path, f"{USER}@box", "true")
    assert result.returncode == 255
    said = f"vmconnect: {played.target}: its host key is not known yet (vmconnect trust add"
    assert result.stderr.count(said) == 1
    assert "Host key verification failed" in result.stderr


def test_another_key_than_the_pinned_is_refused(played: PlayedGuest, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other", check=True)
    path = config(played.target, tmp_path / "config", f"IdentityFile {played.key}")
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "state" / "vmconnect").mkdir(parents=True, mode=0o700, exist_ok=True)
    store = tmp_path / "state" / "vmconnect" / "known_hosts"
    store.write_text(f"{played.target} {other} box accepted 2026-01-01T00:00:00Z\n")
    result = run("ssh", "-F", path, f"{USER}@box", "true")
    assert result.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in result.stderr


def test_a_guest_of_another_host(played: PlayedGuest, tmp_path: Path) -> None:
    """It is reached by two sockets of ssh's: a process stays, and joins them to one."""
    (tmp_path / "far").mkdir()
    with far_host(tmp_path / "far") as host:
        target = f"ssh://{host.name}/{played.target}"
        trusted = run(VMCONNECT, "trust", "add", "--yes", target)
        assert trusted.returncode == 0, trusted.stderr
        login = [f"User {USER}", f"IdentityFile {played.key}"]
        path = config(target, tmp_path / "config", *login)
        data = os.urandom(2 << 20)
        result = run("ssh", "-F", path, "box", "cat", input=data, text=False)
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == data


@pytest.mark.guest
def test_a_machine_by_its_name(demo_machine: DemoMachine, tmp_path: Path) -> None:
    printed = run(VMCONNECT, "ssh-config", demo_machine.name)
    path = tmp_path / "config"
    path.write_text(printed.stdout)
    assert printed.stdout.startswith(f"Host {demo_machine.name}\n")
    assert f"HostKeyAlias {demo_machine.uuid}\n" in printed.stdout
    result = run("ssh", "-F", path, demo_machine.name, "hostname")
    assert (result.returncode, result.stdout, result.stderr) == (0, "demo\n", "")


@pytest.mark.guest
def test_all_machines_by_a_suffix(demo_machine: DemoMachine, tmp_path: Path) -> None:
    for suffix in (".vm", ".guests"):
        words = [] if suffix == ".vm" else ["--suffix", suffix]
        path = tmp_path / "config"
        path.write_text(run(VMCONNECT, "ssh-config", *words).stdout)
        result = run(
            "ssh",
            *("-F", path, "-i", demo_machine.client_key),
            f"root@{demo_machine.name}{suffix}",
            "hostname",
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "demo\n", "")
    missing = run("ssh", "-F", path, "no-such.guests", "true")
    assert missing.returncode == 255
    assert "no machine is called 'no-such'" in missing.stderr


def test_the_way_is_quoted(tmp_path: Path) -> None:
    room = tmp_path / "a % 'b' $(touch x) \"c\""
    room.mkdir()
    with played_guest() as guest:
        moved = room / "guest.vsock"
        shutil.move(guest.path, moved)
        target = f"vsock-mux{moved}"
        assert run(VMCONNECT, "trust", "add", "--yes", target).returncode == 0
        path = config(target, tmp_path / "config", f"IdentityFile {guest.key}", f"User {USER}")
        result = run("ssh", "-F", path, "box", "echo in", cwd=tmp_path)
        assert (result.stdout, result.stderr) == ("in\n", "")
    assert not (tmp_path / "x").exists()


# The proxy alone, between pipes and a socket.


def played_port(path: Path, talk: Callable[[socket.socket], object]) -> socket.socket:
    """Listen as a vsock device whose guest answers, and let ``talk`` be its server."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            while connection.recv(1) != b"\n":
                pass
            connection.sendall(b"OK 7\n")
            with contextlib.suppress(OSError):
                talk(connection)

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_each_end_is_passed_on_alone(tmp_path: Path) -> None:
    def backwards(connection: socket.socket) -> None:
        connection.sendall(b"first\n")
        heard = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        connection.sendall(heard[::-1])

    with played_port(tmp_path / "s", backwards):
        data = os.urandom(3 << 20)
        result = run(VMCONNECT, "proxy", f"vsock-mux{tmp_path}/s", input=data, text=False)
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == b"first\n" + data[::-1]


def test_it_ends_when_the_guest_does_though_input_is_open(tmp_path: Path) -> None:
    with played_port(tmp_path / "s", lambda connection: connection.sendall(b"bye")):
        reader, writer = os.pipe()
        result = run(VMCONNECT, "proxy", f"vsock-mux{tmp_path}/s", stdin=reader)
        assert (result.returncode, result.stdout, result.stderr) == (0, "bye", "")
        os.close(reader)
        os.close(writer)


def test_it_ends_when_nobody_reads(tmp_path: Path) -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(1 << 16))

    with played_port(tmp_path / "s", flood):
        words = f"{VMCONNECT} proxy vsock-mux{tmp_path}/s | head -c 100000 | wc -c"
        result = run("bash", "-c", f"{words}; exit ${{PIPESTATUS[0]}}", stdin=subprocess.DEVNULL)
        assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "100000", "")


def test_who_takes_a_connection_and_goes_leaves_no_process(tmp_path: Path) -> None:
    asked_for_more = threading.Event()

    def silent(connection: socket.socket) -> None:
        """Take all, and say neither anything nor an end."""
        while connection.recv(1 << 16):
            pass
        asked_for_more.wait(WAIT)

    (tmp_path / "far").mkdir()
    ours, theirs = socket.socketpair()
    alive, living = os.pipe()
    with far_host(tmp_path / "far") as host, played_port(tmp_path / "s", silent), ours:
        words = ["proxy", "--fdpass", f"ssh://{host.name}/vsock-mux{tmp_path}/s"]
        handed = run(VMCONNECT, *words, capture_output=False, stdout=theirs, pass_fds=(living,))
        assert handed.returncode == 0
        os.close(living)
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=descriptor) as taken:
            taken.sendall(b"hello")
        # Whoever still lives has it open.
        assert select.select([alive], [], [], WAIT)[0]
        assert os.read(alive, 1) == b""
        asked_for_more.set()
    theirs.close()
    os.close(alive)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["proxy", "no-such"], "no machine is called 'no-such'"),
        (["proxy", "vsock-mux/no/such"], "is the machine running, and is this its socket?"),
        (["proxy", "vnc://127.0.0.1:1"], "no vsock device is known of it"),
        (["proxy", "vsock/3", "0"], "there is no port 0"),
        (["proxy", "vsock/3", "4294967295"], "there is no port 4294967295"),
        (["proxy", "vsock/3", "ssh"], "'ssh' is no port"),
        (["ssh-config", "vnc://127.0.0.1:1"], "vnc://127.0.0.1:1: no vsock device is known of it"),
        (["ssh-config", "no-such"], "no machine is called 'no-such'"),
        (["ssh-config", "--suffix", "* x"], "'* x' is no suffix"),
        (["ssh-config", "--known-hosts", "a,b", "HOSTNAME", "vsock/3"], "no name of one host"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words: list[str], said: str) -> None:
    result = run(VMCONNECT, *words, stdin=subprocess.DEVNULL)
    assert result.returncode == (255 if words[0] == "proxy" else 1)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
