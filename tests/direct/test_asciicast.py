from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.asciicast import AsciicastRecorder
from vmconnect.direct.terminal import Terminal
from vmconnect.errors import ResourceError

TERMINAL = Terminal("xterm", 100, 30)


def events(path: Path) -> tuple[dict[str, Any], list[list[Any]]]:
    """Read a recording as its format is described, and check its shape."""
    head, *lines = path.read_text("utf-8").splitlines()
    header = json.loads(head)
    assert header["version"] == 2
    found = [json.loads(line) for line in lines]
    times = [each[0] for each in found]
    assert times == sorted(times)
    assert all(isinstance(each, float | int) and each >= 0 for each in times)
    assert all(each[1] in {"o", "r"} and isinstance(each[2], str) for each in found)
    return header, found


def text(found: list[list[Any]]) -> str:
    return "".join(each[2] for each in found if each[1] == "o")


def test_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    old = os.umask(0)
    try:
        with AsciicastRecorder(path, TERMINAL, title="web01") as recorder:
            recorder.write(b"\x1b[31mred \xe2\x82")
            recorder.resize(80, 24)
            recorder.write(b"\xac \xff\r\n")
    finally:
        os.umask(old)
    header, found = events(path)
    assert (header["width"], header["height"], header["title"]) == (100, 30, "web01")
    assert header["env"] == {"TERM": "xterm"}
    assert header["timestamp"] > 1_700_000_000
    # A character that comes in two pieces is in the second.
    assert [each[1:] for each in found] == [
        ["o", "\x1b[31mred "],
        ["r", "80x24"],
        ["o", "€ �\r\n"],
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_times_are_those_at_which_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vmconnect.direct.asciicast.time.monotonic", lambda: now[0])
    with AsciicastRecorder(tmp_path / "a", TERMINAL) as recorder:
        for at in (100.25, 101.0, 161.5):
            now[0] = at
            recorder.write(b".")
    assert [each[0] for each in events(tmp_path / "a")[1]] == [0.25, 1.0, 61.5]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    path.write_text("dear")
    with pytest.raises(ResourceError, match="exists"):
        AsciicastRecorder(path, TERMINAL)
    assert path.read_text() == "dear"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError):
        AsciicastRecorder(tmp_path / "link", TERMINAL)
    with pytest.raises(ResourceError, match="cannot be written"):
        AsciicastRecorder(tmp_path / "no" / "such", TERMINAL)


def test_nothing_leaves_nothing(tmp_path: Path) -> None:
    with AsciicastRecorder(tmp_path / "a.cast", TERMINAL):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_ends_the_recording_only(tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    recorder = AsciicastRecorder(path, TERMINAL)
    recorder.write(b"whole\r\n")
    recorder._end()
    recorder._file = os.open("/dev/full", os.O_WRONLY)
    recorder.write(b"lost")
    assert isinstance(recorder.error, ResourceError)
    assert "No space left" in str(recorder.error)
    recorder.write(b"lost")
    recorder.close()
    assert text(events(path)[1]) == "whole\r\n"


@given(st.lists(st.binary()))
def test_any_bytes(pieces: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "a")
        with AsciicastRecorder(path, TERMINAL) as recorder:
            for piece in pieces:
                recorder.write(piece)
        whole = b"".join(pieces)
        if whole:
            assert text(events(path)[1]) == whole.decode("utf-8", "replace")


WRITER = """
import sys
from vmconnect.direct.asciicast import AsciicastRecorder
from vmconnect.direct.terminal import Terminal
recorder = AsciicastRecorder(sys.argv[1], Terminal())
print("begun", flush=True)
while True:
    recorder.write(b"some text with a \\xe2\\x82\\xac in it, and more of it " * 50)
"""


def test_killed_it_is_whole_up_to_then(tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    process.stdout.readline()
    while path.stat().st_size < 1_000_000:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.read_bytes().endswith(b"\n")
    _header, found = events(path)
    assert len(found) > 100


def test_several_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    with AsciicastRecorder(path, TERMINAL) as recorder:

        def resize() -> None:
            for rows in range(1, 300):
                recorder.resize(1, rows)

        def write() -> None:
            for _ in range(300):
                recorder.write(b"x")

        threads = [threading.Thread(target=each) for each in (resize, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert text(events(path)[1]) == "x" * 300
