"""Orders: what a client sends first, and what is none."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.broker.order import BadOrderError, ForeignOrderError, Order, meaningful
from vmconnect.broker.wire import LIMIT_BYTES, PROTOCOL, RUN

# What the kernel hands a process: bytes without NUL, as Python decodes them.
words = st.binary(max_size=40).map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


@given(
    st.lists(words, max_size=8),
    words,
    st.dictionaries(words, words, max_size=5),
    words,
    st.booleans(),
)
def test_an_order_arrives_as_it_was(
    argv: list[str], directory: str, environment: dict[str, str], agent: str, terminal: bool
) -> None:
    order = Order(argv, directory, environment, agent=agent, terminal=terminal, encoding="latin-1")
    read = Order.from_bytes(order.to_bytes())
    for field in Order.__slots__:
        assert getattr(read, field) == getattr(order, field), field


@given(st.binary(max_size=400))
def test_noise_is_no_order(noise: bytes) -> None:
    with pytest.raises((BadOrderError, ForeignOrderError)):
        Order.from_bytes(RUN + noise)


@given(st.data())
def test_a_damaged_order_is_refused_or_read(data: st.DataObject) -> None:
    packet = bytearray(Order(["exec", "web01", "true"], "/", {"HOME": "/root"}).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packet)))
    try:
        order = Order.from_bytes(bytes(packet[:cut]))
    except (BadOrderError, ForeignOrderError):
        return
    assert isinstance(order.argv, list)


@pytest.mark.parametrize("count", ["", "-1", "x", "1000001", "²", "3"])
def test_counts_are_checked(count: str) -> None:
    packet = Order(["exec", "web01"], "/", {}).to_bytes()
    head, _, rest = packet.partition(b"\x002\x000\0")
    with pytest.raises(BadOrderError):
        Order.from_bytes(b"\0".join([head, count.encode(), b"0", rest]))


def test_an_order_of_another_version_or_installation_is_foreign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packet = Order(["exec"], "/", {}).to_bytes()
    assert Order.from_bytes(packet).argv == ["exec"]
    with pytest.raises(ForeignOrderError):
        Order.from_bytes(packet.replace(PROTOCOL.encode(), b"0", 1))
    monkeypatch.setattr(sys, "prefix", "/elsewhere")
    with pytest.raises(ForeignOrderError):
        Order.from_bytes(packet)


def test_an_order_is_bounded() -> None:
    assert len(Order(["x" * (LIMIT_BYTES - 1000)], "/", {}).to_bytes()) <= LIMIT_BYTES
    with pytest.raises(BadOrderError):
        Order(["x" * LIMIT_BYTES], "/", {}).to_bytes()


def test_only_what_has_a_bearing_goes_along() -> None:
    environment = {
        "HOME": "/root",
        "XDG_STATE_HOME": "/state",
        "VMCONNECT_HYPERVISORS": "/machines",
        "LIBVIRT_DEFAULT_URI": "qemu:///system",
        "VMCONNECT_BROKER_IDLE": "3",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "TERM": "xterm",
    }
    assert list(meaningful(environment)) == [
        "HOME",
        "XDG_STATE_HOME",
        "VMCONNECT_HYPERVISORS",
        "LIBVIRT_DEFAULT_URI",
    ]
