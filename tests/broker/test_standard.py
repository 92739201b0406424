"""A client's streams in the broker: none holds a thread for ever, none changes for others."""

import contextlib
import fcntl
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmconnect.broker.standard import End, Input, Output

WAIT = 30.0
DATA = bytes(range(256)) * 4096  # 1 MiB, more than a pipe or a socket holds


class Streams:
    """Makes streams of duplicates of descriptors, and closes them."""

    def __init__(self, end: End, stack: contextlib.ExitStack):
        self._end, self._stack = end, stack

    def output(self, descriptor: int) -> Output:
        output = Output(os.dup(descriptor), self._end)
        self._stack.callback(output.close)
        return output

    def input(self, descriptor: int) -> Input:
        taken = Input(os.dup(descriptor), self._end)
        self._stack.callback(taken.close)
        return taken


@pytest.fixture
def end() -> End:
    return End()


@pytest.fixture
def streams(end: End) -> Iterator[Streams]:
    with contextlib.ExitStack() as stack:
        yield Streams(end, stack)


@contextlib.contextmanager
def descriptors(kind: str) -> Iterator[tuple[int, int]]:
    """Give the descriptors to read from and to write to; who takes one over has to dup it."""
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "socket":
        pair = socket.socketpair()
        reader, writer = (each.detach() for each in pair)
    else:
        reader, writer = pty.openpty()
        tty.setraw(writer)
    try:
        yield reader, writer
    finally:
        for each in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(each)


def leave(descriptor: int) -> None:
    """Close the end of a pipe or socket, and keep its number taken."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def in_thread(action: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


kinds = pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])


@kinds
def test_all_is_written_to_a_reader_that_is_slower(kind: str, streams: Streams) -> None:
    with descriptors(kind) as (reader, writer):
        output = streams.output(writer)
        thread, results = in_thread(lambda: output.write(DATA))
        read = bytearray()
        while len(read) < len(DATA):
            read += os.read(reader, 70_000)
        thread.join(WAIT)
        assert (bytes(read), results) == (DATA, [None])


@kinds
def test_a_writer_that_nobody_reads_ends_with_the_command(
    kind: str, end: End, streams: Streams
) -> None:
    with descriptors(kind) as (_reader, writer):
        output = streams.output(writer)
        thread, results = in_thread(lambda: output.write(DATA))
        thread.join(0.2)
        assert thread.is_alive()
        end.set()
        thread.join(WAIT)
        assert [type(each) for each in results] == [KeyboardInterrupt]
        output.close()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_the_client_s_descriptors_stay_as_they_are(kind: str, streams: Streams) -> None:
    with descriptors(kind) as (reader, writer):
        before = [fcntl.fcntl(each, fcntl.F_GETFL) for each in (reader, writer)]
        output, taken = streams.output(writer), streams.input(reader)
        output.write(b"x")
        assert taken.read() == b"x"
        assert [fcntl.fcntl(each, fcntl.F_GETFL) for each in (reader, writer)] == before
        output.close()
        taken.close()
        os.write(writer, b"y")
        assert os.read(reader, 1) == b"y"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_ends_with_the_command_and_takes_nothing_more(
    kind: str, end: End, streams: Streams
) -> None:
    with descriptors(kind) as (reader, writer):
        taken = streams.input(reader)
        thread, results = in_thread(taken.read)
        thread.join(0.2)
        assert thread.is_alive()
        end.set()
        thread.join(WAIT)
        assert results == [b""]
        os.write(writer, b"for the next")
        assert taken.read() == b""
        taken.close()
        assert os.read(reader, 100) == b"for the next"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_has_left_is_a_broken_pipe(kind: str, streams: Streams) -> None:
    with descriptors(kind) as (reader, writer):
        leave(reader)
        output = streams.output(writer)
        with pytest.raises(BrokenPipeError):
            output.write(DATA)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_an_output_that_is_closed_is_closed(kind: str, streams: Streams) -> None:
    with descriptors(kind) as (reader, writer):
        output = streams.output(writer)
        leave(writer)
        output.close()
        assert os.read(reader, 1) == b""
        with pytest.raises(KeyboardInterrupt):
            output.write(b"x")
        output.close()


def test_files_are_read_and_written_where_they_stand(tmp_path: Path, streams: Streams) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as file:
        file.seek(4)
        taken = streams.input(file.fileno())
        assert taken.read() == b"456789"
        assert taken.read() == b""
        output = streams.output(file.fileno())
        output.write(b"end")
        assert file.tell() == 13
    assert path.read_bytes() == b"0123456789end"


def test_the_null_device_is_known_to_be_empty(streams: Streams) -> None:
    for path, empty in ((os.devnull, True), ("/dev/zero", False)):
        with Path(path).open("rb") as file:
            assert streams.input(file.fileno()).empty is empty
    with descriptors("pipe") as (reader, _writer):
        assert not streams.input(reader).empty


def test_a_pause_holds_up_what_is_written_until_it_is_over(end: End, streams: Streams) -> None:
    with descriptors("pipe") as (reader, writer):
        output = streams.output(writer)
        end.pause(True)
        thread, _results = in_thread(lambda: output.write(b"x"))
        assert select.select([reader], [], [], 0.2)[0] == []
        end.pause(False)
        assert os.read(reader, 1) == b"x"
        thread.join(WAIT)


def test_the_end_ends_a_pause(end: End, streams: Streams) -> None:
    with descriptors("pipe") as (_reader, writer):
        output = streams.output(writer)
        end.pause(True)
        thread, results = in_thread(lambda: output.write(b"x"))
        end.set()
        end.pause(True)
        thread.join(WAIT)
        assert [type(each) for each in results] == [KeyboardInterrupt]


def test_last_words_are_written_after_the_end_if_there_is_room(end: End, streams: Streams) -> None:
    with descriptors("pipe") as (reader, writer):
        output = streams.output(writer)
        end.set()
        output.write_at_once(b"interrupted")
        assert os.read(reader, 100) == b"interrupted"
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, DATA)
        output.write_at_once(b"no room")


def test_a_terminal_does_not_become_ours(end: End) -> None:
    # A process with a session of its own and no terminal would be given the first that it opens.
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setsid()
            with descriptors("terminal") as (_reader, writer):
                Output(os.dup(writer), End()).write(b"x")
                try:
                    os.close(os.open("/dev/tty", os.O_RDWR))
                except OSError:
                    code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_other_end_of_a_terminal_stays_the_same_terminal_s(streams: Streams) -> None:
    with descriptors("terminal") as (master, slave):
        streams.output(master).write(b"typed")
        assert os.read(slave, 100) == b"typed"
