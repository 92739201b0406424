"""ssh's way to say what is forwarded where to."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmconnect.direct.forward.spec import ANYWHERE, LOOPBACK, ForwardKind, ForwardSpec
from vmconnect.errors import TargetError
from vmconnect.streams import Tcp, Unix

HOSTS = st.from_regex(r"[a-z0-9.-]{1,20}|[0-9a-f]{1,4}(:[0-9a-f]{1,4}){1,7}", fullmatch=True)
PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map("/{}".format)
TARGETS = st.builds(Tcp, HOSTS, st.integers(1, 65535)) | st.builds(Unix, PATHS)
LISTENING = st.builds(Tcp, HOSTS, st.integers(0, 65535)) | st.builds(Unix, PATHS)


@pytest.mark.parametrize(
    ("text", "listen", "target"),
    [
        ("8080:web:80", Tcp(LOOPBACK, 8080), Tcp("web", 80)),
        ("0:web:80", Tcp(LOOPBACK, 0), Tcp("web", 80)),
        ("10.0.0.1:8080:web:80", Tcp("10.0.0.1", 8080), Tcp("web", 80)),
        (":8080:web:80", Tcp(ANYWHERE, 8080), Tcp("web", 80)),
        ("*:8080:web:80", Tcp(ANYWHERE, 8080), Tcp("web", 80)),
        ("[::1]:8080:[fe80::1]:80", Tcp("::1", 8080), Tcp("fe80::1", 80)),
        ("8080:[::1]:80", Tcp(LOOPBACK, 8080), Tcp("::1", 80)),
        ("8080:/run/x", Tcp(LOOPBACK, 8080), Unix("/run/x")),
        ("10.0.0.1:8080:/run/x", Tcp("10.0.0.1", 8080), Unix("/run/x")),
        ("/run/x:web:80", Unix("/run/x"), Tcp("web", 80)),
        ("/run/x:/run/y", Unix("/run/x"), Unix("/run/y")),
        (r"/run/a\:b:/run/y", Unix("/run/a:b"), Unix("/run/y")),
    ],
)
def test_forms(text: str, listen: Tcp | Unix, target: Tcp | Unix) -> None:
    assert ForwardSpec.read(text) == ForwardSpec(ForwardKind.LOCAL, listen, target)
    assert ForwardSpec.read(text, ForwardKind.REMOTE).listen == listen


@pytest.mark.parametrize(
    ("text", "listen"),
    [("1080", Tcp(LOOPBACK, 1080)), ("[::]:1080", Tcp("::", 1080)), ("*:0", Tcp(ANYWHERE, 0))],
)
def test_socks_forms(text: str, listen: Tcp) -> None:
    kind = ForwardKind.DYNAMIC
    assert ForwardSpec.read(text, kind) == ForwardSpec(kind, listen, None)


@pytest.mark.parametrize(
    "text",
    ["", ":", "80", "8080:80", "8080:web:0", "8080:web:65536", "x:web:80", "-1:web:80", "1:2:3:4:5",
     "8080::80", "[::1:8080:web:80", "[::1]x:80:web:80", "[]:80:web:80", "/run/x", "8080:a b:80",
     "/run/x:", "/a:/b:/c", "٣:web:80", "80:web:80\0", "1" * 2000],
)  # fmt: skip
def test_what_is_none_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(TargetError, match=r"BIND:\]PORT:HOST:HOSTPORT"):
        ForwardSpec.read(text)


@pytest.mark.parametrize("text", ["", "x", "1080:web:80", "/run/x", "70000", "1080:/run/x"])
def test_socks_is_a_port_alone(text: str) -> None:
    with pytest.raises(TargetError, match=r"-D .*\(\[BIND:\]PORT\)"):
        ForwardSpec.read(text, ForwardKind.DYNAMIC)


@given(LISTENING, TARGETS)
def test_what_is_written_is_read_again(listen: Tcp | Unix, target: Tcp | Unix) -> None:
    spec = ForwardSpec(ForwardKind.LOCAL, listen, target)
    assert ForwardSpec.read(str(spec)) == spec


@given(st.text(max_size=60) | st.text(":[]\\/x1*", max_size=30), st.sampled_from(ForwardKind))
@example("\\", ForwardKind.LOCAL)
def test_anything_is_read_or_refused(text: str, kind: ForwardKind) -> None:
    try:
        spec = ForwardSpec.read(text, kind)
    except TargetError as error:
        assert str(error).startswith(f"-{kind.value} ")
    else:
        assert (spec.target is None) == (kind is ForwardKind.DYNAMIC)
        for end in (spec.listen, spec.target):
            assert not isinstance(end, Tcp) or (end.host and 0 <= end.port <= 65535)
