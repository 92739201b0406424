"""What a guest says of its jobs, which may be anything."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmconnect.direct.job_status import JobStatus, shown, statuses
from vmconnect.errors import GuestError


def test_a_line_is_a_job() -> None:
    line = b'abcd2345 ended 3 100 160 12 0 1 1 ["sh", "-c", "a  b"]\n'
    assert statuses(line) == [
        JobStatus(
            name="abcd2345",
            state="ended",
            argv=("sh", "-c", "a  b"),
            exit_code=3,
            started_at=100,
            ended_at=160,
            stdout_bytes=12,
            stderr_bytes=0,
            truncated=True,
            timed_out=True,
        )
    ]


def test_what_is_not_known_is_none() -> None:
    [status] = statuses(b"a running - - - 0 0 0 0 \n")
    assert (status.exit_code, status.started_at, status.argv) == (None, None, ())


@given(st.binary(max_size=200))
@example(b"../../x ended 0 1 1 0 0 0 0 []")
@example(b"a ended 0 1 1 0 0 0 0 " + b"[" * 100_000)
@example(b"a ended " + b"9" * 5000 + b" 1 1 0 0 0 0 []")
def test_anything_is_jobs_or_refused(data: bytes) -> None:
    with contextlib.suppress(GuestError):
        for status in statuses(data):
            assert status.name.isalnum()
            assert status.exit_code is None or status.exit_code >= 0


@given(st.lists(st.text(max_size=300), min_size=1, max_size=40).map(tuple))
def test_a_command_is_shown_in_one_line_of_bounded_length(argv: tuple[str, ...]) -> None:
    text = shown(argv)
    assert text.isascii()
    assert "\n" not in text
    assert len(text) < 20_000
    [status] = statuses(f"a running - - - 0 0 0 0 {text}\n".encode())
    assert status.argv == argv or status.argv[-1] == "..."
    json.loads(text)


def test_words_that_are_no_utf8_are_shown_too() -> None:
    assert shown(("\udcff",)).isascii()


def test_a_refusal_is_short() -> None:
    with pytest.raises(GuestError) as caught:
        statuses(b"\x1b]0;x" * 1000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300
