"""Functions of ours that another Python calls: a real one, and guests that answer as they like."""

from __future__ import annotations

import json
import posixpath as paths
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmconnect
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import GuestFunction, Result, in_guest
from vmconnect.direct.pump import Sink
from vmconnect.errors import GuestError, GuestPythonError, UnsupportedError
from vmconnect.operation import Operation

LIMIT = 3


class Here:
    """Runs commands on this host, as a guest would."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        operation: Operation | None = None,
    ) -> Result:
        assert isinstance(stdin, bytes)
        words = [sys.executable if argv[0] == "python3" else argv[0], *argv[1:]]
        script = ["sh", "-c", '"$@"', "sh", *words]  # 127 for what is not there
        done = subprocess.run(script, input=stdin, capture_output=True, check=False)
        assert stdout is not None
        stdout(done.stdout)
        if stderr is not None:
            stderr(done.stderr)
        code = done.returncode
        return Result(tuple(argv), code, None, b"", b"" if stderr else done.stderr, 0.0)


class Played:
    """A guest that answers what it is told to."""

    def __init__(self, answer: bytes, exit_code: int = 0):
        self.answer = answer
        self.exit_code = exit_code

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        operation: Operation | None = None,
    ) -> Result:
        assert stdout is not None
        stdout(self.answer)
        return Result(tuple(argv), self.exit_code, None, b"", b"what it said\n", 0.0)


@in_guest
def totals(*numbers: int, **named: Any) -> dict[str, Any]:
    """Of a module that is imported here under another name."""
    return {"sum": sum(numbers), "named": named, "separator": paths.sep}


def fails(text: str) -> int:
    number = int(text)
    return number + 1


def test_arguments_and_result() -> None:
    assert totals.on(Here(), 1, 2, x=[None, "é\n", 1.5]) == {
        "sum": 3,
        "named": {"x": [None, "é\n", 1.5]},
        "separator": "/",
    }
    assert totals(1, 2) == {"sum": 3, "named": {}, "separator": "/"}


def test_what_it_prints_is_apart() -> None:
    printed: list[bytes] = []

    @in_guest(printed=printed.append)
    def talks() -> str:
        import subprocess

        print("hello")
        subprocess.run(["echo", "world"], check=True)
        return "done"

    assert talks.on(Here()) == "done"
    assert sorted(b"".join(printed).split()) == [b"hello", b"world"]


def test_what_it_raises_comes_with_its_lines() -> None:
    with pytest.raises(GuestPythonError, match="invalid literal for int") as caught:
        GuestFunction.of(fails).on(Here(), "x")
    error = caught.value
    assert error.kind == "ValueError"
    line = fails.__code__.co_firstlineno + 1
    assert f'File "{__file__}", line {line}, in fails\n    number = int(text)\n' in error.traceback
    assert error.traceback.count("File ") == 1


def test_what_cannot_be_sent_back() -> None:
    with pytest.raises(GuestPythonError, match="not JSON serializable"):
        GuestFunction.of("def main():\n    return object()\n").on(Here())
    with pytest.raises(GuestPythonError, match="SyntaxError") as caught:
        GuestFunction.of("def main(:").on(Here())
    assert caught.value.kind == "SyntaxError"
    with pytest.raises(GuestPythonError) as caught:
        GuestFunction.of("import sys\ndef main():\n    sys.exit(3)\n").on(Here())
    assert caught.value.kind == "SystemExit"


def test_a_text_and_its_indentation() -> None:
    source = """
        import math
        def main(x):
            return math.sqrt(x)
        """
    assert GuestFunction.of(source).on(Here(), 9) == 3.0
    assert GuestFunction.of(source, name="main").on(Here(), x=4) == 2.0
    with pytest.raises(UnsupportedError):
        GuestFunction.of(source)(9)


def around() -> Callable[[], int]:
    value = 5

    def inner() -> int:
        return value

    return inner


def uses_a_global() -> int:
    return LIMIT


async def asynchronous() -> None:
    pass


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (around(), "uses value, which is not its own"),
        (uses_a_global, "uses LIMIT, which is not its own"),
        (asynchronous, "asynchronous"),
        (lambda: 1, "no function with a name"),
        (print, "no function with a name"),
        (shutil.disk_usage, "uses"),
    ],
)
def test_what_cannot_be_sent_there(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        GuestFunction.of(function)


def test_arguments_that_json_has_no_words_for() -> None:
    with pytest.raises(UnsupportedError, match="as JSON"):
        totals.on(Here(), {1, 2})


def test_no_python_there() -> None:
    with pytest.raises(GuestError, match="there is no nosuchpython in the guest"):
        GuestFunction.of("def main(): pass", python="nosuchpython").on(Here())


@pytest.mark.parametrize(
    "answer",
    [b"", b"no JSON", b"[]", b"{}", b'{"error": 1}', b"[" * 100_000, b"\xff", b'{"error": "X"}'],
)
def test_a_guest_that_answers_nonsense(answer: bytes) -> None:
    with pytest.raises(GuestError, match="gave no result") as caught:
        totals.on(Played(answer))
    assert caught.value.hint == "what it said"


@given(st.binary(max_size=200))
def test_any_answer_is_a_result_or_an_error_of_ours(answer: bytes) -> None:
    try:
        result = totals.on(Played(answer))
    except GuestError:
        return
    assert result == json.loads(answer)["result"]


def test_a_result_without_end_is_refused() -> None:
    with pytest.raises(GuestError, match="larger than 64 MiB"):
        totals.on(Played(bytes(65 << 20)))


@pytest.mark.guest
def test_in_a_real_guest(demo_machine: DemoMachine) -> None:
    @in_guest
    def kernel() -> str:
        import os

        return os.uname().release

    with vmconnect.connect(demo_machine.name) as session:
        guest = session.guest(timeout=60, wait=True)
        assert guest.call(kernel) == guest.run(["uname", "-r"]).text.strip()
        with pytest.raises(GuestPythonError, match="invalid literal") as caught:
            guest.call(fails, "x")
        assert "in fails" in caught.value.traceback
