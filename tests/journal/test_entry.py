"""Entries: what is written is read again, and what is read may be anything."""

import json

from hypothesis import given
from hypothesis import strategies as st

from vmconnect.journal import Entry

texts = st.text(max_size=20)
entries = st.builds(
    Entry,
    time=texts,
    what=texts,
    machine=texts,
    target=st.none() | texts,
    uuid=st.none() | texts,
    user=st.none() | texts,
    uid=st.none() | st.integers(0, 2**32),
    sudo_user=st.none() | texts,
    pid=st.none() | st.integers(0, 2**32),
    error=st.none() | texts,
    message=st.none() | texts,
    seconds=st.none() | st.integers(0, 10**6),
    sent=st.none() | st.integers(0, 2**60),
    received=st.none() | st.integers(0, 2**60),
    details=st.dictionaries(texts, texts | st.integers() | st.booleans(), max_size=3),
)


@given(entries)
def test_what_is_written_is_read_again(entry: Entry) -> None:
    line = entry.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert b"\x1b" not in line
    assert Entry.from_line(line) == entry
    assert json.loads(line)["result"] == ("error" if entry.error is not None else "ok")


@given(entries, st.integers(0, 10_000))
def test_a_line_that_was_cut_short_loses_itself_alone(entry: Entry, cut: int) -> None:
    """A full disk takes the end of a line, and with it the line's end."""
    before = Entry("2026-11-25T14:06:01.000Z", "power.off", "web01", details={"time": "x"})
    whole = before.to_line()
    torn = whole[: cut % len(whole)]
    found = Entry.from_line(torn + entry.to_line())
    assert found == entry


@given(st.binary(max_size=200))
def test_garbage_is_no_entry(line: bytes) -> None:
    assert Entry.from_line(line) is None


@given(
    st.dictionaries(
        st.sampled_from(["time", "what", "machine", "uid", "seconds", "details", "message"]),
        st.none() | st.text(max_size=3) | st.integers() | st.floats() | st.lists(st.none()),
    )
)
def test_fields_of_other_types_are_no_entry(fields: dict[str, object]) -> None:
    found = Entry.from_line(json.dumps(fields).encode())
    if found is not None:
        assert isinstance(found.time, str)
        assert isinstance(found.machine, str)
        assert found.message is None or isinstance(found.message, str)
        assert isinstance(found.details, dict)
        # It can be printed again.
        assert Entry.from_line(found.to_line()) is not None


def test_what_others_say_is_bounded() -> None:
    long = "x" * 10_000
    entry = Entry("t", "w", long, message=long, details={"a": [long] * 1000, "b": {"c": long}})
    assert len(entry.to_line()) < 100_000
    found = Entry.from_line(entry.to_line())
    assert found is not None
    assert found.machine == "x" * 499 + "…"


def test_a_later_version_s_entry_is_understood_as_far_as_it_goes() -> None:
    line = b'{"time": "t", "what": "w", "machine": "m", "colour": "green", "result": "ok"}\n'
    assert Entry.from_line(line) == Entry("t", "w", "m")


def test_endless_and_deep_lines_are_none() -> None:
    assert Entry.from_line(b"[" * 100_000) is None
    assert Entry.from_line(b'{"time":"t","what":"w","machine":"' + b"x" * (2 << 20) + b'"}') is None
