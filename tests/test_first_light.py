"""First light: a real machine's console and commands in its guest, end to end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest

import vmconnect
from tests.ui.xvfb import Display, xvfb
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.errors import CommandLostError, HostKeyChangedError
from vmconnect.hypervisor import QmpClient
from vmconnect.session import Session, TrustStore
from vmconnect.streams import Unix
from vmconnect.vnc import Console

pytestmark = pytest.mark.guest

WAIT = 60.0


@pytest.fixture(scope="module")
def session(demo_machine: DemoMachine) -> Iterator[Session]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session


@pytest.fixture(scope="module")
def guest(session: Session) -> Guest:
    return session.guest(timeout=WAIT, wait=True)


def target(machine: DemoMachine) -> str:
    return f"qemu:{machine.qmp_path}"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vmconnect", *arguments]


def run(
    *arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=WAIT,
        check=False,
        env=env,
    )


# The screen.


def test_firmware_text_is_seen_before_the_kernel_runs(fresh_machine: type[DemoMachine]) -> None:
    with (
        fresh_machine.start("dawn", paused=True) as machine,
        vmconnect.connect(target(machine)) as session,
    ):
        console = session.console()
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            monitor.execute("cont")
            console.wait_for(lambda screen: "SeaBIOS" in "".join(screen.text() or []), WAIT)
            monitor.execute("stop")
        text = console.text()
        assert text is not None
        assert text[0].startswith("SeaBIOS (version")
        assert b"Linux version" not in machine.serial_log.read_bytes()


@contextlib.contextmanager
def window(machine: DemoMachine, display: Display) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``vmconnect console`` in a process of its own, and its X window."""
    process = subprocess.Popen(
        command("console", machine.name), env=display.env, stderr=subprocess.PIPE
    )
    try:
        yield display.window(process, Deadline(WAIT)), process
    finally:
        process.terminate()
        process.communicate()


def screendump(monitor: QmpClient, path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """Return QEMU's own picture of the screen: (height, width) words of 0x00RRGGBB."""
    monitor.execute("screendump", filename=str(path), format="png")
    image = pygame.image.load(path)
    width, height = image.get_size()
    words = np.frombuffer(pygame.image.tobytes(image, "BGRA"), "<u4").reshape(height, width)
    return words & np.uint32(0xFFFFFF)


def test_the_window_shows_what_the_machine_does(
    demo_machine: DemoMachine, guest: Guest, tmp_path: Path
) -> None:
    with xvfb() as display, window(demo_machine, display) as (number, _process):
        assert guest.run(["sh", "-c", "seq 1 20 >/dev/tty1"]).ok
        with QmpClient.connect(Unix(str(demo_machine.qmp_path))) as monitor:
            # Without a running guest nothing blinks, and both pictures are of one moment.
            monitor.execute("stop")
            try:
                truth = screendump(monitor, tmp_path / "truth.png")
                deadline = Deadline(WAIT)
                while True:
                    x, y, width, height = display.area(number)
                    shown = display.pixels()[y : y + height, x : x + width]
                    if np.array_equal(shown, truth):
                        break
                    deadline.check("waiting for the window to show the machine's screen")
            finally:
                monitor.execute("cont")
    assert truth.any()


def test_the_window_follows_a_change_of_resolution(fresh_machine: type[DemoMachine]) -> None:
    with (
        fresh_machine.start("modes", paused=True) as machine,
        xvfb() as display,
        window(machine, display) as (number, _process),
    ):
        first = display.area(number)[2:]
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            monitor.execute("cont")
        # QEMU's screen before the firmware has set a mode is 640x480; the firmware's is 720x400.
        assert first == (640, 480)
        deadline = Deadline(WAIT)
        while display.area(number)[2:] != (720, 400):
            deadline.check("waiting for the firmware's mode")


def test_keys_and_pointer_in_the_window_arrive_in_the_guest(
    demo_machine: DemoMachine, guest: Guest, session: Session
) -> None:
    console = session.console()
    with xvfb() as display, window(demo_machine, display) as (number, process):
        x, y, _width, _height = display.area(number)
        display.xdotool("mousemove", str(x + 100), str(y + 100))
        log_in(console, display)
        type_line(display, "echo 'It Works: |~@#' >/tmp/typed; exit")
        deadline = Deadline(WAIT)
        while guest.run(["cat", "/tmp/typed"]).text != "It Works: |~@#\n":
            deadline.check("waiting for what was typed")
        display.close(number)
        assert process.wait(WAIT) == 0


def log_in(console: Console, display: Display) -> None:
    # Whatever is on the screen, Enter makes getty ask again.
    display.xdotool("key", "Return")
    console.wait_for(lambda _: last_line(console).endswith("login:"), WAIT)
    type_line(display, "root")
    console.wait_for(lambda _: last_line(console).endswith("#"), WAIT)


def type_line(display: Display, text: str) -> None:
    display.xdotool("type", "--delay", "30", text)
    # Typed as a character it would be a keysym that no key has.
    display.xdotool("key", "Return")


def last_line(console: Console) -> str:
    lines = [line for line in console.text() or [] if line]
    return lines[-1].rstrip("_ ") if lines else ""


def test_pointer_motion_arrives_in_the_guest(guest: Guest, session: Session) -> None:
    console = session.console()
    script = """
import glob, select, struct, sys
name = next(d for d in glob.glob("/sys/class/input/event*/device/name")
            if "Tablet" in open(d).read())
with open("/dev/input/" + name.split("/")[4], "rb", buffering=0) as device:
    print("ready", flush=True)
    seen = {}
    while 1 not in seen or 0 not in seen:
        _, _, kind, code, value = struct.unpack("qqHHi", device.read(24))
        if kind == 3:
            seen[code] = value
    print(seen[0] * WIDTH // 32768, seen[1] * HEIGHT // 32768)
"""
    width, height = console.size
    source = script.replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    written = bytearray()

    def sink(data: bytes) -> None:
        if not written:
            console.mouse.move(123, 45)
            console.mouse.move(300, 200)
        written.extend(data)

    result = guest.run(["python3", "-c", source], stdout=sink, timeout=WAIT)
    assert result.exit_code == 0, result.stderr
    seen = [int(word) for word in written.split()[1:]]
    assert seen in ([123, 45], [122, 44], [300, 200], [299, 199])


def test_a_screenshot_is_the_screen(demo_machine: DemoMachine, tmp_path: Path) -> None:
    with QmpClient.connect(Unix(str(demo_machine.qmp_path))) as monitor:
        vnc = f"vnc+unix:{demo_machine.vnc_path}"
        monitor.execute("stop")
        try:
            result = run("screenshot", vnc, "-o", str(tmp_path / "ours.png"))
            truth = screendump(monitor, tmp_path / "truth.png")
        finally:
            monitor.execute("cont")
    assert (result.returncode, result.stderr) == (0, b"")
    image = pygame.image.load(tmp_path / "ours.png")
    width, height = image.get_size()
    ours = np.frombuffer(pygame.image.tobytes(image, "BGRA"), "<u4").reshape(height, width)
    assert np.array_equal(ours & 0xFFFFFF, truth)


# The guest.


def test_ten_megabytes_of_noise_come_back_identical(demo_machine: DemoMachine) -> None:
    noise = secrets.token_bytes(10_000_000)
    result = run("exec", demo_machine.name, "--", "cat", stdin=noise)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == noise


@pytest.mark.parametrize(
    ("argv", "code", "stdout", "stderr"),
    [
        (["true"], 0, b"", b""),
        (["sh", "-c", "echo out; echo err >&2; exit 42"], 42, b"out\n", b"err\n"),
        (["printf", "[%s]", "a b", "it's", "$HOME", "*", ""], 0, b"[a b][it's][$HOME][*][]", b""),
        (["sh", "-c", "kill -TERM $$"], 143, b"", b"vmconnect: the command was ended by SIGTERM\n"),
        (["sh", "-c", "kill -KILL $$"], 137, b"", b"vmconnect: the command was ended by SIGKILL\n"),
        (["cat", "/sys/class/net/lo/type"], 0, b"772\n", b""),
        (["ls", "/sys/class/net"], 0, b"lo\n", b""),
        (["id", "-u"], 0, b"0\n", b""),
    ],
)
def test_exec_gives_what_the_command_gives(
    demo_machine: DemoMachine, argv: list[str], code: int, stdout: bytes, stderr: bytes
) -> None:
    result = run("exec", demo_machine.name, "--", *argv)
    assert (result.returncode, result.stdout, result.stderr) == (code, stdout, stderr)


def test_commands_that_cannot_run(guest: Guest) -> None:
    assert guest.run(["/no/such/command"]).exit_code == 127
    assert guest.run(["/etc/passwd"]).exit_code == 126


def test_another_user_and_a_bare_address(demo_machine: DemoMachine) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    key = str(demo_machine.client_key)
    login = ["-l", "guest", "-i", key]
    refused = run("exec", address, *login, "--", "id", "-un")
    assert refused.returncode == 255
    assert b"is not known yet" in refused.stderr
    accepted = run("exec", address, *login, "--accept-new-host-key", "--", "id", "-un")
    assert (accepted.returncode, accepted.stdout) == (0, b"guest\n")
    known = run("exec", address, *login, "--", "id", "-un")
    assert (known.returncode, known.stdout) == (0, b"guest\n")
    TrustStore().forget(address)


def test_json_has_it_all(demo_machine: DemoMachine) -> None:
    result = run(
        "exec", "--json", demo_machine.name, "sh", "-c", "printf '\\377'; echo e >&2; exit 3"
    )
    assert result.returncode == 3
    told = json.loads(result.stdout)
    assert told["machine"] == demo_machine.name
    assert told["exit_code"] == 3
    assert told["signal"] is None
    assert told["stdout_base64"] == "/w=="
    assert told["stderr"] == "e\n"


def test_list_shows_the_machine(demo_machine: DemoMachine) -> None:
    result = run("list", "--json")
    machines = {machine["name"]: machine for machine in json.loads(result.stdout)}
    machine = machines[demo_machine.name]
    assert machine["uuid"] == demo_machine.uuid
    assert machine["state"] == "running"
    assert machine["console"] == str(demo_machine.vnc_path)
    assert machine["guest"] == f"vsock-mux{demo_machine.vsock_path}:22"
    assert demo_machine.uuid.encode() in run("list").stdout


def test_files_go_in_and_come_back(guest: Guest, tmp_path: Path) -> None:
    noise = secrets.token_bytes(3_000_000)
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(noise)
    assert guest.put(there, "/tmp/noise").size == len(noise)
    assert guest.get("/tmp/noise", back).size == len(noise)
    assert back.read_bytes() == noise
    guest.run(["rm", "/tmp/noise"])
    with pytest.raises(vmconnect.VmconnectError, match="No such file"):
        guest.get("/tmp/noise", back)
    with pytest.raises(vmconnect.VmconnectError, match="cannot copy /proc/x"):
        guest.put(there, "/proc/x")
    assert back.read_bytes() == noise
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "there"]


COPIER = """
import os, sys, vmconnect
with vmconnect.connect(sys.argv[1]) as session:
    guest = session.guest()
    os.write(1, b".")
    try:
        while True:
            if sys.argv[2] == "put":
                guest.put("/dev/stdin", "/tmp/big")
            else:
                guest.get("/tmp/bytes", sys.argv[3])
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("way", ["put", "get"])
@pytest.mark.parametrize("delay", [0.05, 0.3, 1.0])
def test_an_interrupted_copy_leaves_nothing(
    demo_machine: DemoMachine, guest: Guest, tmp_path: Path, way: str, delay: float
) -> None:
    big = tmp_path / "big"
    big.write_bytes(secrets.token_bytes(40_000_000))
    guest.run(["sh", "-c", "head -c 40000000 /dev/urandom >/tmp/bytes"])
    with big.open("rb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", COPIER, demo_machine.name, way, str(tmp_path / "out")],
            stdin=file.fileno(),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, _err = process.communicate(timeout=WAIT)
    assert out == b"interrupted\n"
    assert guest.run(["sh", "-c", "find /tmp -name '.*'; rm -f /tmp/big /tmp/bytes"]).text == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"big", "out"}


def test_many_commands_at_once(guest: Guest) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: guest.run(["echo", str(n)]), range(24)))
    assert [int(result.text) for result in results] == list(range(24))


def test_a_command_meets_its_deadline_and_the_channel_lives(guest: Guest) -> None:
    with pytest.raises(vmconnect.VmconnectError, match="timed out"):
        guest.run(["sleep", "60"], timeout=0.2)
    assert guest.run(["echo", "on"]).text == "on\n"


def test_a_changed_host_key_is_refused(demo_machine: DemoMachine, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    note = json.loads(demo_machine.description_path.read_text())
    before = demo_machine.description_path.read_text()
    note["guest"]["host_key"] = key.with_suffix(".pub").read_text()
    demo_machine.description_path.write_text(json.dumps(note))
    try:
        result = run("exec", demo_machine.name, "--", "true")
        with (
            vmconnect.connect(demo_machine.name) as session,
            pytest.raises(HostKeyChangedError),
        ):
            session.guest()
    finally:
        demo_machine.description_path.write_text(before)
    assert result.returncode == 255
    assert b"the host key has changed" in result.stderr


def test_no_server_on_vsock_is_told(demo_machine: DemoMachine) -> None:
    from vmconnect.errors import ConnectError
    from vmconnect.streams import HybridVsock, dial

    with pytest.raises(ConnectError, match="nothing listens on vsock port 2222"):
        dial(HybridVsock(str(demo_machine.vsock_path), 2222))


# Python's own start is not ours to interrupt well: the clock runs from our first line on.
ENTRY = "import os, sys; from vmconnect.__main__ import main; os.write(1, b'.'); sys.exit(main())"


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.15, 0.3, 0.6, 1.2])
def test_ctrl_c_at_any_moment(demo_machine: DemoMachine, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "exec", "-n", demo_machine.name, "--", "sleep", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (130, b"vmconnect: interrupted\n")


def test_exec_s_fast_path_imports_nothing_heavy(demo_machine: DemoMachine) -> None:
    code = (
        "import sys; from vmconnect.cli import main; "
        f"code = main(['exec', '-n', {demo_machine.name!r}, '--', 'true']); "
        "print(code, *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=WAIT
    )
    code_word, *modules = result.stdout.split()
    assert code_word == "0"
    assert "paramiko" in modules  # It did go the whole way.
    heavy = {"numpy", "pygame", "asyncio", "rich", "invoke", "unittest", "matplotlib"}
    heavy |= {"vmconnect.vnc", "vmconnect.ui", "vmconnect.demo", "concurrent.futures.thread"}
    assert heavy.isdisjoint(modules)


# Power.


def test_power_off_in_the_midst_of_a_command(fresh_machine: type[DemoMachine]) -> None:
    with (
        fresh_machine.start("dusk") as machine,
        vmconnect.connect(machine.name) as session,
    ):
        guest = session.guest(timeout=WAIT, wait=True)
        process = subprocess.Popen(
            command("exec", "-n", machine.name, "--", "sh", "-c", "echo up; sleep 600"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            monitor.execute("system_powerdown")
        _out, err = process.communicate(timeout=WAIT)
        machine.wait(WAIT)
        with pytest.raises(vmconnect.VmconnectError):
            guest.run(["true"], timeout=0.5)
    assert process.returncode == 255
    assert err.startswith(b"vmconnect: dusk: the connection broke while the command ran")
    assert err.count(b"\n") == 1


def test_a_guest_that_reboots_is_reached_again(fresh_machine: type[DemoMachine]) -> None:
    with (
        fresh_machine.start("phoenix") as machine,
        vmconnect.connect(machine.name) as session,
    ):
        console = session.console()
        guest = session.guest(timeout=WAIT, wait=True)
        before = guest.run(["cat", "/proc/sys/kernel/random/boot_id"]).text
        with pytest.raises(CommandLostError, match="how it ended is not known") as caught:
            guest.run(["sh", "-c", "reboot; sleep 600"], timeout=WAIT)
        assert caught.value.started
        again = session.guest(timeout=WAIT, wait=True)
        assert again.run(["cat", "/proc/sys/kernel/random/boot_id"]).text != before
        # The channel of before comes back by itself, and the console was never away.
        assert guest.run(["echo", "back"]).text == "back\n"
        console.wait_for(lambda _: last_line(console).endswith("login:"), WAIT)


def test_two_guests_at_once(demo_machine: DemoMachine, fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("second") as other:
        with vmconnect.connect("second") as session:
            session.guest(timeout=WAIT, wait=True)
        ids = {
            run("exec", name, "--", "cat", "/proc/sys/kernel/random/boot_id").stdout
            for name in (demo_machine.name, other.name)
        }
        assert len(ids) == 2
        names = {machine["name"] for machine in json.loads(run("list", "--json").stdout)}
        assert {demo_machine.name, "second"} <= names


# The demo.


@pytest.mark.parametrize("windowed", [False, True])
def test_the_demo(tmp_path: Path, windowed: bool) -> None:
    with contextlib.ExitStack() as stack:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(stack.enter_context(short_directory()))}
        env.pop("DISPLAY", None)
        env.pop("WAYLAND_DISPLAY", None)
        if windowed:
            env["DISPLAY"] = stack.enter_context(xvfb()).name
        result = subprocess.run(
            command("demo", "--once", "--name", "tour"),
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        left = [*Path(env["XDG_RUNTIME_DIR"], "vmconnect").iterdir()]
    assert result.returncode == 0, result.stderr
    assert "first command in the guest" in result.stderr
    assert "SHA-256 the same at all three places" in result.stderr
    assert left == []
    if not windowed:
        assert "SeaBIOS (version" in result.stderr
        assert (tmp_path / "vmconnect-demo.png").read_bytes().startswith(b"\x89PNG")


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("number", "delay"),
    [
        *((signal.SIGINT, delay) for delay in (0.1, 0.4, 1.5, 4.0)),
        *((number, delay) for number in (signal.SIGTERM, signal.SIGKILL) for delay in (0.4, 4.0)),
    ],
)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, delay: float) -> None:
    with short_directory() as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
        env.pop("DISPLAY", None)
        process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, "demo", "--name", "cut", "--no-window"],
            env=env,
            cwd=runtime,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        time.sleep(delay)
        process.send_signal(number)
        _out, err = process.communicate(timeout=WAIT)
        deadline = Deadline(WAIT)
        while (left := [*(runtime / "vmconnect").glob("*")]) or processes_of(runtime):
            deadline.check(f"waiting for what is left: {left} {processes_of(runtime)}")
    if process.returncode == -number:
        # Killed, or asked to end before there was anything to put away.
        assert number is not signal.SIGINT
        assert number is signal.SIGKILL or err == b""
    else:
        assert process.returncode == 130
        assert err.endswith(b"vmconnect: interrupted\n")
        assert b"Traceback" not in err


def processes_of(runtime: Path) -> list[str]:
    """Return the command lines of the processes that name a runtime directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode()
            if str(runtime) in line:
                found.append(line)
    return found
