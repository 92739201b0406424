"""The thin client, compiled and Python's, with scripted brokers: when it hands over, when not."""

import contextlib
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmconnect.broker import wire
from vmconnect.broker.order import Order, installation

WAIT = 60.0
CLIENTS = {
    "compiled": [str(Path(sys.executable).with_name("vmconnect"))],
    "python": [
        sys.executable,
        "-c",
        "import sys; from vmconnect.__main__ import main; sys.exit(main())",
    ],
}
# What a machine that is not there gives without a broker.
ALONE = (255, b"", b"vmconnect: no machine is called 'nothere'")


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a runtime directory that is empty, and no other place where machines are."""
    path = tmp_path_factory.mktemp("r")
    directory = path / "vmconnect"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    monkeypatch.delenv("VMCONNECT_BROKER")
    # As what the compiled client starts has it: whose orders are of this installation.
    monkeypatch.setenv("VMCONNECT_BROKER_CLIENT", str(Path(CLIENTS["compiled"][0]).resolve()))
    return directory


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> list[str]:
    """Give the argv that either client begins with."""
    return [*CLIENTS[request.param], "exec"]


def started(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=WAIT)
    return process.returncode, out, err


class Peer:
    """A broker's side of one client."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.packet, self.descriptors, _, _ = socket.recv_fds(connection, wire.LIMIT_BYTES, 9)
        self.order = Order.from_bytes(self.packet)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self.connection.send(message)

    def hear(self) -> bytes:
        return self.connection.recv(wire.LIMIT_BYTES)

    def close(self) -> None:
        for each in self.descriptors:
            os.close(each)
        self.descriptors = []
        self.connection.close()


@contextlib.contextmanager
def broker(play: Callable[[Peer], object]) -> Iterator[None]:
    """Serve one client by a script."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(wire.socket_path())
        listener.listen()
        listener.settimeout(WAIT)
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                connection.settimeout(WAIT)
                peer = Peer(connection)
                try:
                    play(peer)
                finally:
                    peer.close()
            except BaseException as error:  # noqa: BLE001 (raised below)
                failed.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(WAIT)
        Path(wire.socket_path()).unlink()
        if failed:
            raise failed[0]


def waiting(peer: Peer) -> None:
    """Show, on its output, that the client has its order behind it, and waits."""
    time.sleep(0.3)
    os.write(peer.descriptors[1], b".")


def interrupted(client: list[str]) -> tuple[int, bytes]:
    """Interrupt a client once it is `waiting`, and return its exit code and what it says."""
    process = started([*client, "nothere", "--", "true"])
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=WAIT)
    return process.returncode, err


def is_alone(result: tuple[int, bytes, bytes]) -> bool:
    return result[:2] == ALONE[:2] and result[2].startswith(ALONE[2])


def test_the_order_has_all_that_matters(
    room: Path, client: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    seen: list[Order] = []

    def play(peer: Peer) -> None:
        seen.append(peer.order)
        assert len(peer.descriptors) == wire.DESCRIPTORS
        os.write(peer.descriptors[1], os.read(peer.descriptors[0], 100).upper())
        os.write(peer.descriptors[2], b"an error")
        for each in peer.descriptors:
            os.close(each)
        peer.descriptors = []
        peer.say(wire.TAKEN, wire.BEGUN, wire.EXIT + bytes([42]))

    with broker(play):
        process = started([*client, "web01", "--", "cat", "\udcff"])
        assert process.communicate(b"input", WAIT) == (b"INPUT", b"an error")
    assert process.returncode == 42
    (order,) = seen
    assert order.argv == ["exec", "web01", "--", "cat", "\udcff"]
    assert order.directory == str(Path.cwd())
    assert (order.agent, order.terminal, order.encoding) == ("/run/agent", False, "utf-8")
    assert order.environment["XDG_RUNTIME_DIR"] == str(room.parent)
    assert "PATH" not in order.environment


def test_both_clients_order_the_same(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "\udcfe"
    odd.mkdir()
    monkeypatch.chdir(odd)
    monkeypatch.setenv("VMCONNECT_ODD", "a=b\nc\udcff")
    monkeypatch.setenv("VMCONNECT_NOTHING", "")
    monkeypatch.setenv("VMCONNECT_BROKER_IDLE", "1")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    monkeypatch.setenv("HOMELY", "of no bearing")
    orders: list[Order] = []

    def play(peer: Peer) -> None:
        orders.append(peer.order)
        peer.say(wire.TAKEN, wire.BEGUN, wire.EXIT + b"\0")

    for client in CLIENTS.values():
        with broker(play):
            assert outcome(started([*client, "exec", "web01", "--", "", "\udcff"])) == (0, b"", b"")
    one, other = ({name: getattr(each, name) for name in Order.__slots__} for each in orders)
    assert one == other
    assert one["environment"]["VMCONNECT_ODD"] == "a=b\nc\udcff"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LC_ALL", "de_DE.ISO-8859-1"),
        ("LANG", "ja_JP"),
        ("PYTHONIOENCODING", "latin-1"),
        ("PYTHONPATH", "/elsewhere"),
    ],
)
def test_where_python_is_not_as_ever_its_own_client_is_asked(
    room: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    packets: list[bytes] = []

    def play(peer: Peer) -> None:
        packets.append(peer.packet)
        peer.say(wire.TAKEN, wire.BEGUN, wire.EXIT + b"\0")

    with broker(play):
        assert outcome(started([*CLIENTS["compiled"], "exec", "web01", "true"]))[0] == 0
    assert packets[0].split(b"\0")[1] == installation().encode()


def test_a_client_without_its_python_says_so(tmp_path: Path) -> None:
    lonely = tmp_path / "vmconnect"
    lonely.write_bytes(Path(CLIENTS["compiled"][0]).read_bytes())
    lonely.chmod(0o755)
    code, out, err = outcome(started([str(lonely), "list"]))
    assert (code, out) == (127, b"")
    assert (
        err
        == (
            f"vmconnect: cannot start {lonely}-python: No such file or directory"
            " (install vmconnect again)\n"
        ).encode()
    )


@pytest.mark.parametrize(
    "says",
    [
        (wire.ALONE,),
        (wire.RETIRED,),
        (wire.TAKEN, wire.ALONE),
        (wire.TAKEN, wire.BEGUN, wire.ALONE),
        (),  # it dies
        (wire.TAKEN,),  # and dies
    ],
)
def test_what_a_broker_does_not_do_the_client_does(
    room: Path, client: list[str], says: tuple[bytes, ...]
) -> None:
    with broker(lambda peer: peer.say(*says)):
        assert is_alone(outcome(started([*client, "nothere", "--", "true"])))


def test_what_a_broker_has_begun_is_not_done_again(room: Path, client: list[str]) -> None:
    with broker(lambda peer: peer.say(wire.TAKEN, wire.BEGUN)):
        result = outcome(started([*client, "nothere", "--", "true"]))
    assert result == (255, b"", b"vmconnect: the broker has ended while the command ran\n")


def test_a_broker_that_hangs_is_left_and_cannot_begin(room: Path, client: list[str]) -> None:
    def play(peer: Peer) -> None:
        assert peer.hear() == b""  # The client has given it up.
        with pytest.raises(BrokenPipeError):
            peer.say(wire.BEGUN)

    with broker(play):
        assert is_alone(outcome(started([*client, "nothere", "--", "true"])))


def test_a_broker_that_has_begun_while_it_was_given_up_is_believed(room: Path) -> None:
    # The client reads what was said before it shut the connection down.
    code = (
        "import vmconnect.broker.client as client, sys\n"
        "class Slow:\n"
        "    def __init__(self, real): self._real, self._timed_out = real, False\n"
        "    def __getattr__(self, name): return getattr(self._real, name)\n"
        "    def recv(self, size):\n"
        "        if not self._timed_out:\n"
        "            self._timed_out = True\n"
        "            import select; select.select([self._real.fileno()], [], [])\n"
        "            raise TimeoutError\n"
        "        return self._real.recv(size)\n"
        "connect = client.wire.connect\n"
        "client.wire.connect = lambda timeout: Slow(connect(timeout))\n"
        "sys.exit(client.hand_over(['exec', 'nothere', 'true']))\n"
    )

    def play(peer: Peer) -> None:
        peer.say(wire.BEGUN)
        assert peer.hear() == b""

    with broker(play):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=WAIT, check=False
        )
    assert (result.returncode, result.stderr) == (
        255,
        b"vmconnect: the broker has ended while the command ran\n",
    )


def test_a_ctrl_c_is_told_and_a_second_one_does_not_wait(room: Path, client: list[str]) -> None:
    heard: list[bytes] = []
    told = threading.Event()
    over = threading.Event()

    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN, wire.BEGUN)
        waiting(peer)
        heard.append(peer.hear())
        told.set()
        over.wait(WAIT)

    with broker(play):
        process = started([*client, "web01", "--", "sleep", "60"])
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.send_signal(signal.SIGINT)
        assert told.wait(WAIT)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        over.set()
    process.communicate()
    assert heard == [wire.SIGNAL + b"INT"]


def test_what_was_interrupted_is_not_done_alone_for_a_broker_that_hangs(
    room: Path, client: list[str]
) -> None:
    def play(peer: Peer) -> None:
        waiting(peer)
        assert [peer.hear(), peer.hear()] == [wire.INTERRUPT, b""]

    with broker(play):
        assert interrupted(client) == (130, b"vmconnect: interrupted\n")


@pytest.mark.parametrize(
    ("says", "outcome"),
    [((wire.EXIT + b"\7",), (7, b"")), ((), (255, b"vmconnect: the broker has ended while"))],
)
def test_what_was_said_is_heard_though_the_broker_has_not_heard_all(
    room: Path, client: list[str], says: tuple[bytes, ...], outcome: tuple[int, bytes]
) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    told = threading.Event()

    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN, wire.BEGUN)
        waiting(peer)
        assert told.wait(WAIT)
        # A message waits unread: the connection will be reset.
        assert select.select([peer.connection], [], [], WAIT)[0]
        processes[0].send_signal(signal.SIGSTOP)
        peer.say(*says)
        peer.close()
        processes[0].send_signal(signal.SIGCONT)

    with broker(play):
        processes.append(started([*client, "nothere", "--", "true"]))
        process = processes[0]
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.send_signal(signal.SIGUSR1)
        told.set()
        _out, err = process.communicate(timeout=WAIT)
    assert process.returncode == outcome[0]
    assert err.startswith(outcome[1])


@pytest.mark.parametrize("says", [wire.ALONE, wire.RETIRED])
def test_what_was_interrupted_is_not_done_alone(room: Path, client: list[str], says: bytes) -> None:
    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN)
        waiting(peer)
        assert peer.hear() == wire.INTERRUPT
        peer.say(says)

    with broker(play):
        assert interrupted(client) == (130, b"vmconnect: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_is_passed_on_and_a_second_one_is_ours(
    room: Path, client: list[str], number: signal.Signals
) -> None:
    told = threading.Event()

    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN, wire.BEGUN)
        waiting(peer)
        assert peer.hear() == wire.SIGNAL + number.name.removeprefix("SIG").encode()
        told.set()
        assert peer.hear() == b""

    with broker(play):
        process = started([*client, "web01", "--", "sleep", "60"])
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.send_signal(number)
        assert told.wait(WAIT)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(WAIT) == -number
    process.communicate()


def test_a_user_s_signals_are_passed_on_each_time(room: Path, client: list[str]) -> None:
    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN, wire.BEGUN)
        waiting(peer)
        for name in (b"USR1", b"USR2", b"USR1"):
            assert peer.hear() == wire.SIGNAL + name
            os.write(peer.descriptors[1], b"h")
        peer.say(wire.EXIT + b"\3")

    with broker(play):
        process = started([*client, "web01", "--", "sleep", "60"])
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            process.send_signal(number)
            assert process.stdout.read(1) == b"h"
        assert process.wait(WAIT) == 3
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_there_is_a_command_is_ours(
    room: Path, client: list[str], number: signal.Signals
) -> None:
    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN)
        waiting(peer)
        assert peer.hear() == b""

    with broker(play):
        process = started([*client, "web01", "--", "sleep", "60"])
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.send_signal(number)
        assert process.wait(WAIT) == -number
    process.communicate()


def test_a_stop_is_told_and_what_follows_it(room: Path, client: list[str]) -> None:
    def play(peer: Peer) -> None:
        peer.say(wire.TAKEN, wire.BEGUN)
        waiting(peer)
        assert peer.hear() == wire.PAUSE
        os.write(peer.descriptors[1], b"p")
        assert peer.hear() == wire.RESUME
        peer.say(wire.EXIT + b"\0")

    with broker(play):
        process = subprocess.Popen(
            [*client, "web01", "--", "sleep", "60"],
            stdout=subprocess.PIPE,
            # A shell does so for every job. Of an orphaned process group nobody would wait.
            process_group=0,
        )
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == signal.SIGTSTP
        assert process.stdout.read(1) == b"p"
        process.send_signal(signal.SIGCONT)
        assert process.wait(WAIT) == 0
    process.communicate()


def test_a_terminal_is_read_by_the_client_and_only_when_it_is_wanted(
    room: Path, client: list[str]
) -> None:
    heard: list[bytes] = []

    def play(peer: Peer) -> None:
        assert peer.order.terminal
        peer.say(wire.TAKEN, wire.BEGUN, wire.WANT)
        heard.append(peer.hear())
        peer.say(wire.WANT)
        heard.append(peer.hear())
        peer.say(wire.WANT, wire.EXIT + b"\7")

    master, slave = os.openpty()
    try:
        with broker(play):
            process = subprocess.Popen([*client, "web01", "--", "cat"], stdin=slave)
            os.write(master, b"a line\n\x04")
            assert process.wait(WAIT) == 7
    finally:
        os.close(master)
        os.close(slave)
    assert heard == [wire.INPUT + b"a line\n", wire.INPUT]


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["--no-broker", "nothere", "true"], {}),
        (["nothere", "true"], {"VMCONNECT_BROKER": "0"}),
        (["nothere", "true"], {"VMCONNECT_DEBUG": "1"}),
        (["nothere", "true"], {"VMCONNECT_GUEST_PASSWORD_NOTHERE": "secret"}),
        (["nothere", *["x" * (wire.LIMIT_BYTES // 2)] * 2], {}),
    ],
)
def test_some_commands_never_go_to_a_broker(
    room: Path,
    client: list[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(wire.socket_path())
        listener.listen()
        listener.settimeout(WAIT)
        assert is_alone(outcome(started([*client, *words])))
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError), listener.accept()[0] as connection:
            assert connection.recv(wire.LIMIT_BYTES) == b""


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_descriptor_that_is_closed_is_handed_over_as_the_null_device(
    room: Path, client: list[str], descriptor: int
) -> None:
    seen: list[Path] = []

    def play(peer: Peer) -> None:
        seen.extend(Path(f"/proc/self/fd/{each}").readlink() for each in peer.descriptors)
        peer.say(wire.TAKEN, wire.EXIT + b"\0")

    with broker(play):
        closed = f"{shlex.join([*client, 'nothere', 'true'])} {descriptor}>&-"
        subprocess.run(["sh", "-c", closed], stdin=subprocess.PIPE, timeout=WAIT, check=True)
    assert [number for number, path in enumerate(seen) if path == Path(os.devnull)] == [descriptor]


def test_a_directory_that_others_may_write_to_is_not_trusted(room: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(wire.socket_path())
        listener.listen()
        room.chmod(0o777)
        assert wire.connect(1.0) is None
        room.chmod(0o700)
        connection = wire.connect(1.0)
        assert connection is not None
        connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_listener_of_another_user_is_given_nothing(room: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(wire.socket_path())
        # The kernel notes who listens when it is said.
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        assert wire.connect(1.0) is None
        listener.settimeout(WAIT)
        with listener.accept()[0] as connection:
            assert connection.recv(100) == b""


def test_a_socket_that_nobody_serves_is_no_broker(room: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(wire.socket_path())
    assert wire.connect(1.0) is None


def test_the_client_imports_next_to_nothing(room: Path) -> None:
    code = (
        "import sys, os; before = set(sys.modules); "
        "from vmconnect.__main__ import main; from vmconnect.broker import client; "
        "code = client.hand_over(['exec', 'web01', 'true']); "
        "print(code, *sorted(set(sys.modules) - before))"
    )
    with broker(lambda peer: peer.say(wire.TAKEN, wire.BEGUN, wire.EXIT + b"\0")):
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=True,
        )
    assert result.stdout.split() == [
        "0",
        "_socket",
        "vmconnect",
        "vmconnect.__main__",
        "vmconnect.broker",
        "vmconnect.broker.client",
        "vmconnect.broker.order",
        "vmconnect.broker.wire",
        "vmconnect.runtime",
    ]
