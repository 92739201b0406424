"""``vmconnect shell`` beside ``ssh -tt``: a key's echo, and text through the terminal.

Both run on terminals of their own, over the same kind of stream; the contenders take turns. ::

    python -m bench.shell [--rounds N] [--keys N] [--megabytes N] [--no-guest]

The echo is the guest's: a key goes in at one end of the terminal here, and comes back from the
other. There are two guests: the demo machine, over its user-space vsock device, and this machine's
own sshd over a UNIX socket, where the far end costs next to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import statistics
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.guest import NAME, PROXY, VMCONNECT, Figure, Peers, table
from tests.direct.sshd import SshdGuest, sshd_guest
from vmconnect.cli.progress import TerminalProgress
from vmconnect.demo import DemoMachine, build
from vmconnect.session import connect

LINE = b"It is text of which a screen is full, and each of its lines is as long as this.\n"
READY = b"<ready>"
DONE = b"<done>"
Words = Callable[..., list[str]]


@contextlib.contextmanager
def on_terminal(words: list[str]) -> Iterator[int]:
    """Run a program on a terminal of its own, and give the end that a person has."""
    child, controller = pty.fork()
    if child == 0:
        os.execvp(words[0], words)  # noqa: S606
    fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        yield controller
    finally:
        os.close(controller)
        os.waitpid(child, 0)


def read_until(controller: int, mark: bytes) -> int:
    """Read until a mark has come; return how many bytes did."""
    count, tail = 0, b""
    while mark not in tail:
        data = os.read(controller, 1 << 16)
        count += len(data)
        tail = tail[-len(mark) :] + data
    return count


def echo(words: Words, keys: int) -> float:
    """Return the median of a key's way there and back, in microseconds."""
    took = []
    with on_terminal(words("sh", "-c", f"stty -echoctl; printf '{READY.decode()}'; cat")) as end:
        read_until(end, READY)
        time.sleep(0.3)
        for number in range(keys):
            key = b"abcdefgh"[number % 8 :][:1]
            started = time.perf_counter()
            os.write(end, key)
            read_until(end, key)
            took.append((time.perf_counter() - started) * 1e6)
            if number % 64 == 63:
                os.write(end, b"\r")
                lines = 0
                while lines < 2:  # cat has the line too.
                    lines += os.read(end, 1 << 16).count(b"\n")
        os.write(end, b"\r\x04")
        with contextlib.suppress(OSError):
            while os.read(end, 1 << 16):
                pass
    return statistics.median(took)


def throughput(words: Words, path: str) -> float:
    """Return at how many MB/s a file comes through."""
    script = f"printf '{READY.decode()}'; read x; cat {path}; printf '{DONE.decode()}'"
    with on_terminal(words("sh", "-c", script)) as end:
        read_until(end, READY)
        time.sleep(0.3)
        os.write(end, b"\r")
        started = time.perf_counter()
        count = read_until(end, DONE)
        seconds = time.perf_counter() - started
        with contextlib.suppress(OSError):
            while os.read(end, 1 << 16):
                pass
    return count / 1e6 / seconds


def measured(
    where: str, ours: Words, ssh: Words, path: str, options: argparse.Namespace
) -> list[Figure]:
    """Let both take turns."""
    contenders = {"vmconnect shell": ours, "ssh -tt": ssh}
    figures = []
    measures: list[tuple[str, str, Callable[[Words], float]]] = [
        (f"key's echo, {where}", "µs", lambda words: echo(words, options.keys)),
        (f"cat, {where}", "MB/s", lambda words: throughput(words, path)),
    ]
    for what, unit, measure in measures:
        values: dict[str, list[float]] = {who: [] for who in contenders}
        for _round in range(options.rounds):
            for who, words in contenders.items():
                values[who].append(measure(words))
        figures += [Figure(what, unit, who, values[who]) for who in contenders]
    return figures


def on_this_host(options: argparse.Namespace) -> list[Figure]:
    """Measure over a UNIX socket to an sshd of this machine's."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, sshd_guest(Path(name)) as box:
        path = Path(name, "text")
        path.write_bytes(LINE * ((options.megabytes << 20) // len(LINE)))
        ssh = ssh_to(box)
        login = [VMCONNECT, "shell", *box.login, "--"]
        return measured("sshd of this host", lambda *argv: [*login, *argv], ssh, str(path), options)


def ssh_to(box: SshdGuest) -> Words:
    """Return what makes ssh's command lines for a guest of the tests."""
    proxy = box.directory / "proxy.py"
    proxy.write_text(PROXY)
    python = os.path.realpath(sys.executable)
    words = [
        *("ssh", "-tt", "-F", "none", "-i", str(box.key), "-l", box.user),
        *("-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"),
        *("-o", "LogLevel=ERROR", "-o", "ProxyUseFdpass=yes"),
        *("-o", f"ProxyCommand={python} -I -S {proxy} {box.socket}", "box"),
    ]
    return lambda *argv: [*words, quoted(argv)]


def quoted(argv: tuple[str, ...]) -> str:
    """Return a command as a shell reads it."""
    import shlex

    return shlex.join(argv)


def in_the_demo_s_guest(options: argparse.Namespace) -> list[Figure]:
    """Measure over the user-space vsock device."""
    with TerminalProgress() as progress, tempfile.TemporaryDirectory(prefix="vmc-") as name:
        image = build(progress)
        with (
            DemoMachine.start(NAME, image=image, progress=progress) as machine,
            connect(f"qemu:{machine.qmp_path}") as session,
        ):
            guest = session.guest(timeout=120, wait=True)
            text = LINE * ((options.megabytes << 18) // len(LINE))
            guest.run(["sh", "-c", "cat >/tmp/text"], stdin=text)
            peers = Peers(machine, image, Path(name))
            login = [VMCONNECT, "shell", f"qemu:{machine.qmp_path}", "--"]
            return measured(
                "demo guest",
                lambda *argv: [*login, *argv],
                lambda *argv: [*peers.ssh(quoted(argv))[:1], "-tt", *peers.ssh(quoted(argv))[1:]],
                "/tmp/text",  # noqa: S108 (the guest's)
                options,
            )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=32)
    parser.add_argument("--no-guest", action="store_true", help="without the demo machine")
    options = parser.parse_args()
    figures = on_this_host(options)
    if not options.no_guest:
        figures += in_the_demo_s_guest(options)
    print(table(figures))


if __name__ == "__main__":
    main()
