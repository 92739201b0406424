"""Targets: what a person types."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import TargetError
from vmconnect.session.target import AddressTarget, NamedTarget, QemuTarget, parse_target
from vmconnect.streams import HybridVsock, Tcp, Unix, Vsock


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("web01", NamedTarget("web01")),
        ("Windows Server 2025", NamedTarget("Windows Server 2025")),
        (
            "9f3c5a52-0f0e-4c53-9b2e-0e8f1a6f3f10",
            NamedTarget("9f3c5a52-0f0e-4c53-9b2e-0e8f1a6f3f10"),
        ),
        ("qemu:/run/vms/web01.qmp", QemuTarget("/run/vms/web01.qmp")),
        ("vnc+unix:/run/a b.vnc", AddressTarget("vnc+unix:/run/a b.vnc", Unix("/run/a b.vnc"))),
        ("vnc://kvm7", AddressTarget("vnc://kvm7", Tcp("kvm7", 5900))),
        ("vnc://kvm7:5901/", AddressTarget("vnc://kvm7:5901/", Tcp("kvm7", 5901))),
        ("vnc://[::1]:5902", AddressTarget("vnc://[::1]:5902", Tcp("::1", 5902))),
        ("vnc://[fe80::1]", AddressTarget("vnc://[fe80::1]", Tcp("fe80::1", 5900))),
        ("vsock/3", AddressTarget("vsock/3", guest=Vsock(3, 22))),
        (
            "vsock-mux/run/v.sock",
            AddressTarget("vsock-mux/run/v.sock", None, HybridVsock("/run/v.sock", 22)),
        ),
    ],
)
def test_every_form_is_read_and_printed_back(text: str, target: object) -> None:
    parsed = parse_target(text)
    assert parsed == target
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "no:such",
        "tab\there",
        "x" * 256,
        "qemu:relative.sock",
        "qemu:",
        "vnc+unix:relative",
        "vnc://",
        "vnc://:5900",
        "vnc://host:",
        "vnc://host:0",
        "vnc://host:65536",
        "vnc://host:٣",
        "vnc://[::1",
        "vnc://[::1]x",
        "vnc://host/path",
        "vsock/",
        "vsock/2",
        "vsock/4294967295",
        "vsock/-3",
        "vsock/²",
        "vsock-muxer",
        "vsock-mux/",
    ],
)
def test_nonsense_is_refused_with_a_hint(text: str) -> None:
    if text == "vsock-muxer":  # A name like any other.
        assert parse_target(text) == NamedTarget(text)
        return
    if text == "vsock-mux/":  # The root directory is a path, and no socket.
        assert parse_target(text) == AddressTarget(text, None, HybridVsock("/", 22))
        return
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert caught.value.hint


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(TargetError) as caught:
        parse_target("vnc://user:s3cret@host")
    assert "s3cret" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_a_target_or_a_target_error(text: str) -> None:
    with contextlib.suppress(TargetError):
        assert str(parse_target(text)) == text
