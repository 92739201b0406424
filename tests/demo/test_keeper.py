"""The keeper, with a small program in QEMU's place."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmconnect.demo.keeper import LOG_BYTES, LOG_DESCRIPTOR, Plan

WAIT = 30.0

# Listens, as a device must before QEMU is started.
DEVICE = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
SERVES = DEVICE + "s.listen(); time.sleep(600)"


@pytest.fixture
def room() -> Iterator[Path]:
    """Give a private directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        yield Path(name)


def plan(room: Path, qemu: str, device: str = SERVES) -> Plan:
    return Plan(
        directory=str(room),
        name="m",
        device=[sys.executable, "-c", device, f"{room}/m.vu"],
        qemu=[sys.executable, "-c", qemu, LOG_DESCRIPTOR],
        files={"json": "{}"},
    )


def keep(line: bytes) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vmconnect.demo.keeper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process


def told(plan: Plan) -> list[dict[str, object]]:
    """Keep a machine that ends by itself, and return the keeper's events."""
    with keep(plan.to_line()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        events = [json.loads(line) for line in process.stdout]
        assert process.stderr.read() == b""
        assert process.wait(WAIT) == 0
    assert list(Path(plan.directory).iterdir()) == []
    return events


def test_the_serial_log_stays_within_bounds(room: Path) -> None:
    lines = 5 * LOG_BYTES // 10
    talks = (
        f"import sys, time; log = open(sys.argv[1], 'w')\n"
        f"for n in range({lines}): print(f'{{n:09}}', file=log)\n"
        f"log.close(); print('all said', file=sys.stderr, flush=True); time.sleep(600)"
    )
    log = room / "m.log"
    with keep(plan(room, talks).to_line()) as process:
        assert process.stdin is not None
        last = b"%09d\n" % (lines - 1)
        largest = 0
        while True:
            if log.exists():
                largest = max(largest, log.stat().st_size)
                with log.open("rb") as file:
                    file.seek(max(0, log.stat().st_size - len(last)))
                    if file.read() == last:
                        break
        assert largest <= LOG_BYTES
        kept = [int(line) for line in log.read_bytes().split(b"\n")[1:-1]]
        assert kept == list(range(kept[0], lines))  # none is missing among the last
        assert len(kept) > LOG_BYTES // 2 // 10 - 2
        process.stdin.close()
        assert process.wait(WAIT) == 0
    assert list(room.iterdir()) == []


def test_the_end_of_qemu_is_told_with_its_last_words(room: Path) -> None:
    fails = "import sys; print('first', file=sys.stderr); sys.exit('no such machine')"
    started, ended = told(plan(room, fails))
    assert started["event"] == "started"
    assert ended == {
        "event": "ended",
        "reason": "QEMU failed with status 1: no such machine",
        "status": 1,
    }


def test_a_device_that_does_not_start_is_told(room: Path) -> None:
    events = told(plan(room, "", device="import sys; sys.exit('no such socket')"))
    reason = "the vsock device failed with status 1: no such socket"
    assert events == [{"event": "ended", "reason": reason, "status": None}]


def test_a_flood_of_errors_is_bounded(room: Path) -> None:
    floods = "import sys; sys.stderr.write('x' * 10_000_000); sys.exit(3)"
    _, ended = told(plan(room, floods))
    assert str(ended["reason"]).startswith("QEMU failed with status 3: xxx")
    assert len(str(ended["reason"])) < 20_000


def test_a_missing_directory_is_told(room: Path) -> None:
    gone = Plan(f"{room}/gone", "m", ["true"], ["true"], {})
    with keep(gone.to_line()) as process:
        assert process.stdout is not None
        [event] = [json.loads(line) for line in process.stdout]
    assert event["reason"] == f"No such file or directory: {room}/gone/m.lock"


@pytest.mark.parametrize("line", [b"", b'{"directory": "/tm'])
def test_an_owner_that_died_before_it_said_what_to_start(line: bytes) -> None:
    with keep(line) as process:
        out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out, err) == (0, b"", b"")
