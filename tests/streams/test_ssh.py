"""Through ssh: real ssh and sshd. What every stream promises is in the contract."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HostKeyChangedError,
    HostKeyUnknownError,
    MissingDependencyError,
    ResourceError,
    SshError,
    TargetError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.streams import (
    HybridVsock,
    SocketStream,
    SshHost,
    Stream,
    Tcp,
    ThroughSsh,
    Tls,
    Unix,
    WebSocket,
    dial,
    through,
)
from vmconnect.streams.ssh import client
from vmconnect.streams.ssh.mux import STREAMLOCAL, ChannelRefusedError, MuxClient

from .far_ends import SECONDS, listening
from .far_host import FarHost, far_host

KVM7 = SshHost("kvm7")


@pytest.fixture
def host() -> Iterator[FarHost]:
    """Give a host of the test's own, with no connection to it yet."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, far_host(Path(name)) as host:
        yield host


@pytest.fixture
def by_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ssh be too old to connect to UNIX sockets itself, as it may be anyway."""
    monkeypatch.setattr(client, "version", lambda _deadline: (9, 2))


@contextlib.contextmanager
def echo(path: Path | None = None) -> Iterator[Unix | Tcp]:
    """Serve an echo, to any number of clients."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(data)

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    over = threading.Event()
    with listening(path) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Unix(str(path)) if path else Tcp(*listener.getsockname())
        finally:
            over.set()
            thread.join()


def check_echo(stream: Stream) -> None:
    stream.settimeout(SECONDS)
    stream.sendall(b"abc")
    assert stream.recv(3) == b"abc"


def dialled(
    endpoint: Tcp | Unix | HybridVsock, where: SshHost = KVM7
) -> contextlib.closing[Stream]:
    return contextlib.closing(dial(through(where, endpoint), SECONDS))


def failed(
    endpoint: Tcp | Unix | HybridVsock, where: SshHost = KVM7, seconds: float = SECONDS
) -> VmconnectError:
    with pytest.raises(VmconnectError) as caught:
        dial(through(where, endpoint), seconds)
    assert str(caught.value).isprintable()
    return caught.value


# The host, and ssh's way there.


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("kvm7", SshHost("kvm7")),
        ("ann@kvm7.lan:2222", SshHost("kvm7.lan", "ann", 2222)),
        ("[fe80::1%eth0]:22", SshHost("fe80::1%eth0", None, 22)),
    ],
)
def test_hosts(text: str, host: SshHost) -> None:
    assert SshHost.read(text) == host
    assert str(host) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=touch${IFS}x",
        "-l@kvm7",
        "ann@-kvm7",
        "kvm7:0",
        "kvm7:022",
        "kvm7:65536",
        "kvm7:",
        "@kvm7",
        "a b",
        "a;b",
        "$(id)",
        "`id`",
        "kvm7\n",
        "kvm\u0667",
        "x" * 256,
    ],
)
def test_hosts_that_are_none(text: str) -> None:
    with pytest.raises(TargetError):
        SshHost.read(text)


@given(st.text(max_size=30))
def test_any_text_is_a_host_without_options_or_not(text: str) -> None:
    with contextlib.suppress(TargetError):
        host = SshHost.read(text)
        assert str(host) == text
        assert not text.startswith("-")
        assert set(text) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-@:[]%"
        )


def test_what_lies_over_a_connection_stays_here() -> None:
    tcp = Tcp("127.0.0.1", 5700)
    there = ThroughSsh(KVM7, tcp)
    assert through(KVM7, tcp) == there
    assert through(KVM7, Tls(tcp, "web")) == Tls(there, "web")
    assert through(KVM7, WebSocket(Tls(tcp, "web"), "web")) == WebSocket(Tls(there, "web"), "web")
    assert str(there) == "127.0.0.1:5700 on kvm7"
    with pytest.raises(UnsupportedError, match="ProxyJump"):
        through(KVM7, there)


@pytest.mark.parametrize(
    ("endpoint", "private", "local"),
    [
        (Tcp("kvm7", 1), False, False),
        (Tcp("::1", 1), False, True),
        (Unix("/s"), True, True),
        (HybridVsock("/s", 1), True, True),
        (through(KVM7, Unix("/s")), True, False),
        (through(KVM7, Tcp("127.0.0.1", 1)), False, False),
        (Tls(Tcp("kvm7", 1), "kvm7"), True, False),
        (WebSocket.at("ws://kvm7/"), False, False),
        (WebSocket.at("ws://127.0.0.1/"), False, True),
        (WebSocket.at("wss://kvm7/"), True, False),
        (WebSocket(Unix("/s"), "localhost"), True, True),
    ],
)
def test_who_could_listen(endpoint: Tcp, private: bool, local: bool) -> None:
    assert (endpoint.private, endpoint.local) == (private, local)


# Logging in.


def test_a_host_key_that_nobody_knows(host: FarHost) -> None:
    host.know(None)
    error = failed(Tcp("127.0.0.1", 1))
    assert isinstance(error, HostKeyUnknownError)
    assert "ssh kvm7" in str(error)
    assert not host.masters()


def test_a_host_key_that_has_changed(host: FarHost) -> None:
    host.know("other_key")
    assert isinstance(failed(Tcp("127.0.0.1", 1)), HostKeyChangedError)


def test_a_login_that_is_refused(host: FarHost) -> None:
    host.configure(f"IdentityFile {host.directory}/other_key")
    host.serve("AuthorizedKeysFile none")
    error = failed(Tcp("127.0.0.1", 1))
    assert isinstance(error, AuthenticationError)
    assert "nobody can be asked" in str(error)


def test_a_host_that_is_not_there(host: FarHost) -> None:
    host.configure("ProxyCommand echo SSH-1.0-x; echo gone >&2")
    assert isinstance(failed(Tcp("127.0.0.1", 1)), ConnectError)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        host.configure("ProxyCommand none", "HostName 127.0.0.1", f"Port {port}")
        error = failed(Tcp("127.0.0.1", 1))
    assert isinstance(error, ConnectError)
    assert "Connection refused" in str(error)
    assert "cannot reach kvm7" in str(error)


def test_a_silent_host_meets_the_deadline_and_leaves_no_ssh(host: FarHost) -> None:
    note = host.directory / "pids"
    host.configure(f"ProxyCommand sh -c 'echo $PPID $$ > {note}; exec sleep 600'")
    error = failed(Tcp("127.0.0.1", 1), seconds=1.0)
    assert isinstance(error, DeadlineError | ConnectError)
    for pid in map(int, note.read_text().split()):
        gone(pid)


def gone(pid: int) -> None:
    """Wait until a process is no more."""
    deadline = Deadline(SECONDS)
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            deadline.check(f"waiting for the end of {pid}")


def test_no_ssh(host: FarHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCONNECT_SSH", "/nonexistent/ssh")
    error = failed(Tcp("127.0.0.1", 1))
    assert isinstance(error, MissingDependencyError)
    assert "openssh-client" in str(error)
    monkeypatch.setenv("VMCONNECT_SSH", "ssh 'unfinished")
    assert isinstance(failed(Tcp("127.0.0.1", 1)), TargetError)
    assert host.masters() == []


def test_no_place_for_a_control_socket(
    host: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert isinstance(failed(Tcp("127.0.0.1", 1)), ResourceError)
    assert host.masters() == []


# Connecting from there.


def test_sockets_with_any_name(host: FarHost, directory: Path) -> None:
    del host
    for name in ("plain", "with 'quotes\" and $(id) `id` \\ ;&|", "new\nline", "-dash", "ünï"):
        with echo(directory / name) as endpoint, dialled(endpoint) as stream:
            check_echo(stream)


def test_one_connection_is_shared(host: FarHost, directory: Path) -> None:
    with echo(directory / "s") as there, echo() as port:
        with dialled(there) as one, dialled(there) as two, dialled(port) as three:
            for stream in (one, two, three):
                check_echo(stream)
            (path,) = host.masters()
            # Another process shares it too: this one could not log in.
            host.know(None)
            code = (
                "import sys; from vmconnect.streams import *; "
                "stream = dial(through(SshHost('kvm7'), Unix(sys.argv[1]))); "
                "stream.sendall(b'abc'); print(stream.recv(3))"
            )
            said = subprocess.run(
                [sys.executable, "-c", code, there.path],  # type: ignore[union-attr]
                capture_output=True,
                text=True,
                check=True,
            )
        assert said.stdout == "b'abc'\n"
        assert host.masters() == [path]
        assert path.stat().st_mode & 0o077 == 0


def test_many_at_the_same_time_log_in_once(host: FarHost) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with echo() as port, ThreadPoolExecutor(12) as pool, contextlib.ExitStack() as stack:
        for stream in pool.map(lambda _: dial(through(KVM7, port), SECONDS), range(12)):
            stack.callback(stream.close)
            check_echo(stream)
        assert len(host.masters()) == 1


def test_the_user_s_own_connection_is_used(host: FarHost, directory: Path) -> None:
    control = directory / "mine"
    host.configure(f"ControlPath {control}")
    login = subprocess.Popen(
        ["ssh", "-F", host.config, "-M", "-N", "kvm7"], stdin=subprocess.DEVNULL
    )
    try:
        deadline = Deadline(SECONDS)
        while not control.exists():
            deadline.check("waiting for ssh")
        with echo() as port, dialled(port) as stream:
            check_echo(stream)
        assert host.masters() == []
    finally:
        login.terminate()
        login.wait()
    # Without it there is one of ours, and the user's path is left alone.
    with echo() as port, dialled(port) as stream:
        check_echo(stream)
    assert not control.exists()
    assert len(host.masters()) == 1


def test_a_connection_that_was_killed_is_told_and_made_anew(host: FarHost) -> None:
    with echo() as port:
        with dialled(port) as stream:
            check_echo(stream)
            (path,) = host.masters()
            said = host.ssh("-S", str(path), "-O", "check", "kvm7")
            pid = int("".join(filter(str.isdigit, said.stderr + said.stdout)))
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConnectionLostError):
                while stream.recv(1):
                    pass
        assert path.exists()  # left behind
        with dialled(port) as stream:
            check_echo(stream)


def test_a_refusal_says_what_the_far_kernel_said(host: FarHost, directory: Path) -> None:
    del host
    missing = failed(Unix(str(directory / "missing")))
    assert isinstance(missing, ConnectError)
    assert "No such file" in str(missing)
    assert "is this its socket" in str(missing)
    (directory / "file").touch()
    assert "refused" in str(failed(Unix(str(directory / "file"))))
    assert "refused" in str(failed(Tcp("127.0.0.1", 1)))
    assert "host.invalid:5900 on kvm7" in str(failed(Tcp("host.invalid", 5900)))
    assert isinstance(failed(HybridVsock(str(directory / "missing"), 22)), ConnectError)


def test_a_host_that_forwards_nothing_is_got_round(host: FarHost, directory: Path) -> None:
    host.serve("DisableForwarding yes")
    with echo() as port, dialled(port) as stream:
        check_echo(stream)
    with echo(directory / "s") as there, dialled(there) as stream:
        check_echo(stream)


@pytest.mark.usefixtures("by_relay")
def test_a_host_that_allows_nothing_is_told(host: FarHost, directory: Path) -> None:
    host.serve("DisableForwarding yes", "MaxSessions 0")
    error = failed(Tcp("127.0.0.1", 1))
    assert "permit forwarding" in str(error)
    error = failed(Unix(str(directory / "s")))
    assert "MaxSessions" in str(error)


@pytest.mark.usefixtures("by_relay")
def test_a_host_with_no_python_is_told(host: FarHost, directory: Path) -> None:
    host.serve("SetEnv PATH=/nonexistent")
    error = failed(Unix(str(directory / "s")))
    assert isinstance(error, MissingDependencyError)
    assert "no python3 on kvm7" in str(error)
    with echo() as port, dialled(port) as stream:  # It needs none.
        check_echo(stream)


@pytest.mark.usefixtures("by_relay")
def test_a_host_where_commands_are_others(host: FarHost, directory: Path) -> None:
    host.serve("ForceCommand echo This account is closed. >&2")
    assert "This account is closed" in str(failed(Unix(str(directory / "s"))))
    host.leave()
    host.serve('ForceCommand echo Welcome!; exec sh -c "$SSH_ORIGINAL_COMMAND"')
    with echo(directory / "s") as there, dialled(there) as stream:
        check_echo(stream)
    host.leave()
    host.serve("ForceCommand yes")
    error = failed(Unix(str(directory / "s")))
    assert "without an end" in str(error)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def processes_about(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().decode(errors="replace")
            if word in line:
                found.append(line)
    return found


@pytest.mark.usefixtures("by_relay")
def test_nothing_stays_of_a_closed_stream(host: FarHost, directory: Path) -> None:
    """No descriptor here; no process there, though the server there does not hang up."""
    del host
    coded = str(directory / "s").encode().hex().upper()
    with listening(directory / "s") as listener:
        endpoint = through(KVM7, Unix(str(directory / "s")))
        dial(endpoint, SECONDS).close()  # The master is there from here on.
        before = descriptors()
        streams = [dial(endpoint, SECONDS) for _ in range(3)]
        served = [listener.accept()[0] for _ in range(4)]
        assert processes_about(coded)
        for stream in streams:
            stream.close()
        with pytest.raises(ConnectError):
            dial(through(KVM7, Unix("/nonexistent/s")), SECONDS)
        deadline = Deadline(SECONDS)
        while processes_about(coded):
            deadline.check("waiting for the relays")
        for each in served:
            each.close()
        assert descriptors() == before


def test_no_descriptor_goes_to_another_host(host: FarHost, directory: Path) -> None:
    del host
    with echo(directory / "s") as there, dialled(there) as stream:
        assert isinstance(stream, SocketStream)
        with pytest.raises(UnsupportedError, match="another host"):
            stream.send_descriptor(b"x", 0)


# What is said to the master: a scripted one, as no real one says these things.


@contextlib.contextmanager
def said(*packets: bytes | None) -> Iterator[tuple[SocketStream, Callable[[], bytes]]]:
    """A master that says all this at once, None being its end; and what it has heard."""
    ours, theirs = socket.socketpair()
    with theirs:
        for packet in packets:
            if packet is None:
                theirs.shutdown(socket.SHUT_WR)
            else:
                theirs.sendall(packet)
        stream = SocketStream(ours, "the master")
        try:
            yield stream, lambda: theirs.recv(1 << 16)
        finally:
            stream.close()


def packet(kind: int, *words: int, text: bytes | None = None) -> bytes:
    body = struct.pack(f">{len(words) + 1}I", kind, *words)
    if text is not None:
        body += struct.pack(">I", len(text)) + text
    return struct.pack(">I", len(body)) + body


HELLO = packet(1, 4)
OPENED, FAILED, DENIED, EXITED = 0x80000006, 0x80000003, 0x80000002, 0x80000004


@pytest.mark.parametrize(
    ("packets", "error"),
    [
        ([packet(1, 3)], ConnectError),
        ([packet(7)], ConnectError),
        ([b"RFB 003.008\n"], SshError),
        ([b"\xff\xff\xff\xff"], SshError),
        ([b"\0\0\0\0"], SshError),
        ([HELLO[:5], None], ConnectError),
        ([None], ConnectError),
        ([], DeadlineError),
    ],
)
def test_what_is_no_master(packets: list[bytes | None], error: type[VmconnectError]) -> None:
    with said(*packets) as (stream, _heard), pytest.raises(error):
        MuxClient(stream, Deadline(0.05 if error is DeadlineError else SECONDS))


def test_a_forwarding_to_a_path_is_asked_for_as_openssh_9_4_wants_it() -> None:
    """No OpenSSH of that age is here."""
    with said(HELLO, packet(OPENED, 9, 9), packet(OPENED, 1, 5)) as (stream, heard):
        mux = MuxClient(stream, Deadline(SECONDS))
        null = os.open(os.devnull, os.O_RDWR)
        mux.forward("/run/s", STREAMLOCAL, (null, null), Deadline(SECONDS))
        os.close(null)
        request = struct.pack(">III", 0x10000008, 1, 0) + b"\0\0\0\6/run/s\xff\xff\xff\xfe"
        # The two descriptors come with a byte each.
        assert heard() == HELLO + struct.pack(">I", len(request)) + request + b"\0"
        assert heard() == b"\0"


def test_a_path_is_forwarded_where_ssh_can(
    host: FarHost, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ssh here may not be able to: then it refuses, and the relay is the way."""
    del host
    monkeypatch.setattr(client, "version", lambda _deadline: (9, 4))
    with echo(directory / "s") as there, dialled(there) as stream:
        check_echo(stream)


@pytest.mark.parametrize("kind", [FAILED, DENIED])
def test_refusals(kind: int) -> None:
    with said(HELLO, packet(kind, 1, text=b"no\x1b such")) as (stream, _heard):
        mux = MuxClient(stream, Deadline(SECONDS))
        with pytest.raises(ChannelRefusedError, match=r"no\? such"):
            mux.run("true", (), Deadline(SECONDS))


def test_the_end_of_a_command() -> None:
    packets = [HELLO, packet(OPENED, 1, 5), packet(OPENED, 7), packet(EXITED, 5, 127), None]
    with said(*packets) as (stream, _heard):
        mux = MuxClient(stream, Deadline(SECONDS))
        mux.run("true", (), Deadline(SECONDS))
        assert mux.exit_status(Deadline(SECONDS)) == 127
        assert mux.exit_status(Deadline(SECONDS)) is None
        with pytest.raises(VmconnectError):
            mux.run("true", (), Deadline(SECONDS))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_any_master_is_an_error_of_ours(packets: list[bytes]) -> None:
    with (
        said(*[struct.pack(">I", len(each)) + each for each in packets], None) as (stream, _heard),
        contextlib.suppress(VmconnectError),
    ):
        MuxClient(stream, Deadline(SECONDS)).run("true", (), Deadline(SECONDS))
