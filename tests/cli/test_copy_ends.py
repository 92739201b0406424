"""What a person types for the ends of a copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.cli.copy_ends import CopyEnd, read_end
from vmconnect.errors import TargetError


@pytest.mark.parametrize(
    ("text", "target", "path"),
    [
        ("web01:/srv", "web01", "/srv"),
        ("web01:", "web01", "."),
        ("web01:~", "web01", "."),
        ("web01:~/site", "web01", "site"),
        ("web01:a:b", "web01", "a:b"),
        ("web01:a\nb", "web01", "a\nb"),
        ("[qemu:/run/web01.qmp]:/srv", "qemu:/run/web01.qmp", "/srv"),
        ("[vsock/3]:x", "vsock/3", "x"),
        ("[ssh://kvm7/web01]:", "ssh://kvm7/web01", "."),
        ("[libvirt:///system/a]:~/x", "libvirt:///system/a", "x"),
        ("./a:b", None, "./a:b"),
        ("/a:b", None, "/a:b"),
        ("site", None, "site"),
        (":x", None, ":x"),
        ("[x]", None, "[x]"),
        ("[]:x", "[]", "x"),
    ],
)
def test_ends(text: str, target: str | None, path: str) -> None:
    assert read_end(text) == CopyEnd(target, path)


@pytest.mark.parametrize("text", ["qemu:/run/a.qmp", "ssh://kvm7/web01:/x", "qemu+tls://a/b:/x"])
def test_a_target_with_no_end_to_it_is_told(text: str) -> None:
    with pytest.raises(TargetError, match="does not say where its target ends"):
        read_end(text)


@given(st.text(), st.text(min_size=1))
def test_any_target_can_be_bracketed(target: str, path: str) -> None:
    if target and "]:" not in target and not target.endswith("]"):
        assert read_end(f"[{target}]:/{path}") == CopyEnd(target, f"/{path}")
