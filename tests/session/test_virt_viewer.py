"""virt-viewer's connection files: what is read, what is refused, and that a ticket stays secret."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import ResourceError, TargetError, UnsupportedError
from vmconnect.secret import Secret
from vmconnect.session import parse_target, resolve
from vmconnect.session.virt_viewer import ViewerFile, parse_viewer_file
from vmconnect.streams import Tcp

# As Proxmox and oVirt write them, but for the protocol.
FILE = """\ufeff# made by a portal
[other]
host=elsewhere
[virt-viewer]
type=vnc
host=kvm7.example
port=5901
username=ann
password = s3\\scret\\\\
title=web01 \x1b - Press SHIFT+F12 to Release Cursor
ca=-----BEGIN CERTIFICATE-----\\nMIID\\n-----END CERTIFICATE-----\\n
toggle-fullscreen=Shift+F11
delete-this-file=1
[ovirt]
host=elsewhere:443
"""


def written(path: Path, text: str = FILE) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_the_console_it_tells_of_and_is_deleted(tmp_path: Path) -> None:
    path = written(tmp_path / "console.vv")
    machine = resolve(parse_target(str(path)))
    assert machine.console == Tcp("kvm7.example", 5901)
    assert machine.identity == "vnc://kvm7.example:5901"
    assert machine.name == "web01   - Press SHIFT+F12 to Release Cursor"
    assert (machine.console_user, machine.console_password) == ("ann", Secret("s3 cret\\"))
    assert "s3" not in repr(machine)
    assert not path.exists()


def test_a_file_that_does_not_ask_for_it_stays(tmp_path: Path) -> None:
    path = written(tmp_path / "a.vv", "[virt-viewer]\r\ntype=vnc\r\nhost=::1\r\nport=5900\r\n")
    assert resolve(parse_target(str(path))).console == Tcp("::1", 5900)
    assert path.exists()


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    (tmp_path / "a.vv").symlink_to(path)
    resolve(parse_target(str(tmp_path / "a.vv")))
    assert path.exists()
    assert not (tmp_path / "a.vv").exists()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", TargetError, "no connection file"),
        ("[other]\ntype=vnc\n", TargetError, "no connection file"),
        (FILE.replace("type=vnc", "type=spice"), UnsupportedError, "'spice', not for VNC"),
        (FILE.replace("type=vnc", ""), UnsupportedError, "not for VNC"),
        (FILE.replace("port=5901", "port=0"), TargetError, "no port"),
        (FILE.replace("port=5901", "tls-port=5901"), TargetError, "no port"),
        (FILE.replace("host=kvm7.example", "host=a/b"), TargetError, "no host"),
        (FILE.replace("type=vnc", "type=vnc\nproxy=http://p"), UnsupportedError, "proxy"),
        (FILE + "#" * (256 << 10), TargetError, "too long"),
        (FILE.replace("s3", "s" * 5000), TargetError, "past all bounds"),
    ],
)
def test_other_files_are_refused_and_stay(
    tmp_path: Path, text: str, kind: type[Exception], words: str
) -> None:
    path = written(tmp_path / "a.vv", text)
    with pytest.raises(kind, match=words) as caught:
        resolve(parse_target(str(path)))
    assert "s3" not in str(caught.value)
    assert path.exists()


def test_what_is_no_file_is_no_connection_file(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        resolve(parse_target(str(tmp_path / "none.vv")))
    (tmp_path / "directory.vv").mkdir()
    with pytest.raises(ResourceError, match="directory"):
        resolve(parse_target(str(tmp_path / "directory.vv")))
    os.mkfifo(tmp_path / "pipe.vv")  # nobody writes to it, and nobody waits
    with pytest.raises(TargetError, match="no file"):
        resolve(parse_target(str(tmp_path / "pipe.vv")))


LINES = st.lists(
    st.sampled_from([line.encode() for line in FILE.split("\n")]) | st.binary(max_size=40),
    max_size=20,
).map(b"\n".join)


@given(st.one_of(st.binary(max_size=400), LINES, LINES.map(lambda d: b"[virt-viewer]\n" + d)))
def test_any_bytes_are_a_file_or_an_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(TargetError, UnsupportedError):
        file = parse_viewer_file(data, "a.vv")
        assert isinstance(file, ViewerFile)
        assert 0 < file.console.port < 65536
        assert file.title is None or file.title.isprintable()
