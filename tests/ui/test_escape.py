from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.ui.escape import EscapeParser, Order

# What matters comes often.
typed = st.lists(st.sampled_from([b"~", b".", b"?", b"\x1a", b"\r", b"\n", b"a", b"\xc3"])).map(
    b"".join
)


def joined(found: list[bytes | Order]) -> list[bytes | Order]:
    """Return the same, with bytes that follow each other in one."""
    result: list[bytes | Order] = []
    for each in found:
        if isinstance(each, bytes) and result and isinstance(last := result[-1], bytes):
            result[-1] = last + each
        else:
            result.append(each)
    return result


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", []),
        (b"ls\r", [b"ls\r"]),
        (b"~.", [Order.HANG_UP]),
        (b"ls\r~.", [b"ls\r", Order.HANG_UP]),
        (b"ls\n~?\x03", [b"ls\n", Order.HELP, b"\x03"]),
        # An escape leaves us at the beginning of the line.
        (b"~?~\x1a~.", [Order.HELP, Order.SUSPEND, Order.HANG_UP]),
        (b"~~.", [b"~."]),
        (b"~~~.", [b"~~."]),
        (b"\r~~\r~.", [b"\r~\r", Order.HANG_UP]),
        (b"ls ~/x ~.", [b"ls ~/x ~."]),
        (b"~x~.", [b"~x~."]),
        (b"~\r~.", [b"~\r", Order.HANG_UP]),
        (b"\r~", [b"\r"]),
    ],
)
def test_escapes(data: bytes, found: list[bytes | Order]) -> None:
    assert EscapeParser().receive(data) == found
    bytewise = EscapeParser()
    pieces = [each for byte in data for each in bytewise.receive(bytes([byte]))]
    assert joined(pieces) == found


def test_another_character_and_none() -> None:
    assert EscapeParser(b"^").receive(b"~.\r^.") == [b"~.\r", Order.HANG_UP]
    assert EscapeParser(None).receive(b"~.\r~.") == [b"~.\r~."]
    assert EscapeParser(None).receive(b"") == []


@given(st.lists(typed))
def test_how_it_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    parser = EscapeParser()
    found = [each for piece in pieces for each in parser.receive(piece)]
    assert joined(found) == EscapeParser().receive(b"".join(pieces))


@given(typed)
def test_as_ssh_reads_it(data: bytes) -> None:
    """The rules of ssh(1), byte by byte: a second, slower reading of them."""
    expected: list[bytes | Order] = []
    line_start, pending = True, False
    for number in data:
        byte = bytes([number])
        if pending:
            pending = False
            if byte in {b".", b"?", b"\x1a"}:
                expected.append(Order(byte))
                continue
            if byte != b"~":
                expected.append(b"~")
        elif line_start and byte == b"~":
            pending = True
            continue
        line_start = byte in {b"\r", b"\n"}
        expected.append(byte)
    assert EscapeParser().receive(data) == joined(expected)


@given(st.binary())
def test_what_has_no_escape_goes_through(data: bytes) -> None:
    text = data.replace(b"~", b"-")
    assert (
        b"".join(each for each in EscapeParser().receive(text) if isinstance(each, bytes)) == text
    )
