"""The guest's tree: what is chosen from the packages, and what never is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from vmconnect.demo.cpio import CpioWriter
from vmconnect.demo.modules import Module
from vmconnect.demo.rootfs import Rootfs, guest_files
from vmconnect.errors import ResourceError


def written(rootfs: Rootfs) -> list[str]:
    """Return the names in the archive, in order."""
    names: list[str] = []

    class Named(CpioWriter):
        def _write(self, fields: tuple[int, ...], name: bytes, data: bytes) -> None:
            names.append(name.decode())
            super()._write(fields, name, data)

    with Named(io.BytesIO()) as archive:
        rootfs.write(archive)
    return names


def test_every_directory_comes_before_what_is_in_it(tmp_path: Path) -> None:
    rootfs = Rootfs(tmp_path)
    rootfs.add_guest_files()
    rootfs.add("usr/lib/a/b/c", b"deep")
    rootfs.add_directory("home/guest/.ssh", 0o700, 1000)
    rootfs.add_modules([Module("m", "m.ko", b"")])
    names = written(rootfs)
    links = {"bin", "sbin", "lib", "lib64", "var/run"}
    for place, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:place], name
        assert parent not in links, name
    assert len(names) == len(set(names))
    assert {"init", "etc/os-release", "usr/lib/modules/order", "dev/console"} <= set(names)


def test_our_files_name_the_guest() -> None:
    assert b'PRETTY_NAME="vmconnect demo"' in guest_files()["etc/os-release"]
    assert guest_files()["init"].startswith(b"#!/bin/sh")


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ({"usr/bin/busybox": "/etc/passwd"}, None),
        ({"usr/bin/busybox": "../../../../../../../../../../etc/passwd"}, None),
        ({"usr/bin/busybox": "busybox"}, None),
        ({"usr/bin/busybox": "/opt/real"}, "opt/real"),
        ({"usr/bin/busybox": "../../../../opt/real"}, "opt/real"),
        ({"usr/bin": "/opt/links", "opt/links/busybox": "../real"}, "opt/real"),
        ({"usr/bin": "/etc"}, None),
        ({"bin/busybox": "../opt/real"}, "opt/real"),
    ],
)
def test_links_stay_in_the_packages(
    tmp_path: Path, links: dict[str, str], found: str | None
) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/real").write_text("real")
    for name, target in links.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(target)
    place = Rootfs(tmp_path)._find("usr/bin/busybox")
    assert place == (found and tmp_path / found)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="none of the packages has usr/bin/busybox"):
        Rootfs(tmp_path).add_programs()
