"""The journal's files: several writers, a bounded size, and everything that can go wrong."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmconnect.errors import ResourceError
from vmconnect.journal import Entry, JournalFile


def entry(number: int, machine: str = "web01", **more: str) -> Entry:
    return Entry(f"2026-11-25T14:06:{number:06}Z", "guest.run", machine, details=dict(more))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "vmconnect" / "journal.jsonl"


def times(entries: list[Entry]) -> list[int]:
    return [int(each.time[-7:-1]) for each in entries]


def test_it_is_private_and_in_order(path: Path) -> None:
    journal = JournalFile(path)
    assert journal.entries() == []
    for number in range(5):
        journal.append(entry(number))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert times(journal.entries()) == [0, 1, 2, 3, 4]
    assert times(journal.entries(last=2)) == [3, 4]
    assert times(journal.entries(lambda each: each.time < entry(2).time)) == [0, 1]


def test_it_is_bounded_and_what_is_kept_is_the_latest(path: Path) -> None:
    journal = JournalFile(path, file_bytes=1000, old_files=3)
    for number in range(500):
        journal.append(entry(number))
    files = sorted(each.name for each in path.parent.iterdir() if each.suffix != ".lock")
    assert files == ["journal.jsonl", *(f"journal.jsonl.{number}" for number in (1, 2, 3))]
    assert all(each.stat().st_size <= 1000 for each in path.parent.iterdir())
    kept = times(journal.entries())
    assert kept == list(range(kept[0], 500))
    assert len(kept) > 20


WRITER = """
import sys
from pathlib import Path
from vmconnect.journal import Entry, JournalFile
journal = JournalFile(Path(sys.argv[1]), file_bytes=20_000, old_files=1000)
for number in range(300):
    journal.append(Entry(f"{number:06}", "guest.run", sys.argv[2], details={"x": "y" * 200}))
"""


def test_several_processes_write_whole_lines_and_lose_none(path: Path) -> None:
    names = ["a", "b", "c", "d"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in names]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    journal = JournalFile(path, old_files=1000)
    found = journal.entries()
    for name in names:
        assert [each.time for each in found if each.machine == name] == [
            f"{number:06}" for number in range(300)
        ]
    lines = b"".join(each.read_bytes() for each in path.parent.glob("journal.jsonl*"))
    assert lines.count(b"\n") == 1200
    assert len(list(path.parent.iterdir())) > 4


@contextlib.contextmanager
def following(journal: JournalFile, count: int) -> Iterator[list[Entry]]:
    """Follow it in a thread, for so many entries."""
    found: list[Entry] = []
    news = journal.follow(timeout=60)

    def follow() -> None:
        for each in news:
            found.append(each)
            if len(found) == count:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield found
    finally:
        thread.join()


@pytest.mark.parametrize("before", [0, 3])
def test_who_follows_sees_all_that_is_new_across_files(path: Path, before: int) -> None:
    journal = JournalFile(path, file_bytes=600, old_files=50)
    for number in range(before):
        journal.append(entry(number))
    with following(journal, 40) as found:
        for number in range(before, before + 40):
            journal.append(entry(number))
    assert times(found) == list(range(before, before + 40))


def test_who_follows_ends_at_the_deadline(path: Path) -> None:
    assert list(JournalFile(path).follow(timeout=0)) == []
    JournalFile(path).append(entry(1))
    assert list(JournalFile(path).follow(timeout=0.01)) == []


def test_damage_is_passed_over(path: Path) -> None:
    journal = JournalFile(path)
    journal.append(entry(1))
    with path.open("ab") as file:
        file.write(b"\xff\x00garbage\n[]\n" + b"x" * 3_000_000 + b"\n" + entry(2).to_line()[:40])
    journal.append(entry(3))
    journal.append(entry(4))
    assert times(journal.entries()) == [1, 3, 4]


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink", "device"])
def test_what_is_no_file_of_ours_is_not_written_to(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    elsewhere = path.parent / "elsewhere"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "symlink":
            path.symlink_to(elsewhere)
        case "device":
            path.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="cannot write the journal"):
        JournalFile(path).append(entry(1))
    with pytest.raises(ResourceError, match="cannot read the journal"):
        JournalFile(path).entries()
    assert not elsewhere.exists()


FULL = """
import resource, sys
from pathlib import Path
from vmconnect.errors import ResourceError
from vmconnect.journal import Entry, JournalFile
path = Path(sys.argv[1])
journal = JournalFile(path)
def write(number):
    journal.append(Entry(f"{number:06}", "w", "m", details={"x": "y" * 100}))
write(0)
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
for number in (1, 2):
    try:
        write(number)
    except ResourceError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
write(3)
print([each.time for each in journal.entries()])
"""


def test_a_full_disk_is_an_error_and_loses_no_other_line(path: Path) -> None:
    """The disk is full by a limit on the file's size: it takes a part of a line, as a disk does."""
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    one, two, times_read = result.stdout.splitlines()
    assert "No space left" in one
    assert "File too large" in two
    assert times_read == "['000000', '000003']"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(ResourceError, match="open to other users"):
        JournalFile(path).append(entry(1))
    assert list(path.parent.iterdir()) == []
