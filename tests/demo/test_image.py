"""The image cache: built once, built again when it must be, never half."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.demo.conftest import Builder, fill
from vmconnect.demo import DemoImage, build, image
from vmconnect.demo.packages import Package
from vmconnect.demo.rootfs import guest_files
from vmconnect.errors import MissingDependencyError, ResourceError

WAIT = 120


@pytest.fixture
def own_cache(demo_image: DemoImage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a cache of the test's own, with packages and no image; `build` uses it."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        fill(Path(name), demo_image)
        yield Path(name)


@pytest.fixture(scope="module")
def outputs(cache: Path, building: Builder) -> list[list[str]]:
    """Build in two processes at once and return the lines of each."""
    processes = [building(cache), building(cache)]
    told = []
    for process in processes:
        out, err = process.communicate(timeout=WAIT)
        assert (process.returncode, err) == (0, "")
        told.append(out.splitlines())
    return told


@pytest.fixture
def built(
    outputs: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[Package]
) -> DemoImage:
    """Give the image that this module shares; apt answers from memory."""
    assert outputs
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(image, "resolve", lambda: found)
    return build()


def contents(cache: Path) -> set[str]:
    """Return what is in the room beside the packages."""
    room = cache / "vmconnect/demo"
    there = {str(path.relative_to(room)) for path in room.rglob("*")}
    packages = {f"packages/{path.name}" for path in (room / "packages").glob("*.deb")}
    return there - packages


def refused(*_: object) -> object:
    raise MissingDependencyError("no apt here")


def test_two_builds_at_once_make_one_image(outputs: list[list[str]], cache: Path) -> None:
    keys = {lines[-1] for lines in outputs}
    assert len(keys) == 1
    assert sum("Writing the image" in lines for lines in outputs) == 1
    waiting = "Waiting for another process that builds the image"
    assert sum(lines[0] == waiting for lines in outputs) == 1
    assert all(line[0].isupper() for lines in outputs for line in lines)
    key = keys.pop().removeprefix("KEY ")
    files = ("kernel", "initrd", "client_key", "host_key.pub", "image.json")
    assert contents(cache) == {
        *("lock", "current.json", "packages", "images", f"images/{key}"),
        *(f"images/{key}/{name}" for name in files),
    }


def test_the_second_build_asks_nobody(built: DemoImage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built.initrd.stat().st_mtime_ns
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(image, "resolve", refused)
    assert build() == built
    assert built.initrd.stat().st_mtime_ns == before


def test_the_keys_are_private_and_a_pair(built: DemoImage, tmp_path: Path) -> None:
    assert stat.S_IMODE(built.client_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(built.initrd.stat().st_mode) == 0o600  # the host's private key is in it
    subprocess.run(
        ["cpio", "-id", "--quiet", "-F", str(built.initrd), "etc/*", "root/*"],
        cwd=tmp_path,
        check=True,
    )
    for private, public in (
        (tmp_path / "etc/ssh/ssh_host_ed25519_key", built.host_key),
        (built.client_key, (tmp_path / "root/.ssh/authorized_keys").read_text()),
    ):
        told = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(private)], check=True, capture_output=True, text=True
        ).stdout
        assert told.split()[:2] == public.split()[:2]


def test_new_lists_with_the_same_packages_build_nothing(
    built: DemoImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "lists_signature", lambda: "after apt-get update")
    monkeypatch.setattr(image, "_make", refused)
    assert build() == built
    monkeypatch.setattr(image, "resolve", refused)  # the new lists are remembered
    assert build() == built


def test_without_apt_the_last_image_serves(
    built: DemoImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "lists_signature", lambda: "apt has gone")
    monkeypatch.setattr(image, "resolve", refused)
    assert build() == built
    # But not one of another version's making.
    monkeypatch.setattr(image, "_recipe", lambda: "another")
    with pytest.raises(MissingDependencyError):
        build()


@pytest.mark.parametrize("what", ["file", "package", "code"])
def test_what_goes_in_decides_which_image(
    what: str, built: DemoImage, found: tuple[Package, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(_room: Path, key: str, *_: object) -> DemoImage:
        made.append(key)
        raise ResourceError("far enough")

    monkeypatch.setattr(image, "_make", make)
    if what == "file":
        files = {**guest_files(), "etc/motd": b"new"}
        monkeypatch.setattr(image, "guest_files", lambda: files)
    elif what == "code":
        monkeypatch.setattr(image, "_BUILDERS", (*image._BUILDERS, "machine"))
    else:
        newer = Package(found[0].filename, found[0].size, "SHA256:" + "1" * 64)
        monkeypatch.setattr(image, "lists_signature", lambda: "after an upgrade")
        monkeypatch.setattr(image, "resolve", lambda: (newer, *found[1:]))
    with pytest.raises(ResourceError, match="far enough"):
        build()
    assert made
    assert made[0] != built.kernel.parent.name


def damage_initrd(found: DemoImage) -> None:
    with found.initrd.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")


def damage_description(found: DemoImage) -> None:
    path = found.kernel.parent / "image.json"
    description = json.loads(path.read_text())
    del description["files"]["client_key"]
    path.write_text(json.dumps(description))


DAMAGES: dict[str, Callable[[DemoImage], object]] = {
    "initrd": damage_initrd,
    "client_key": lambda found: found.client_key.write_bytes(b""),
    "kernel gone": lambda found: found.kernel.unlink(),
    "description": damage_description,
    "description no JSON": lambda found: (found.kernel.parent / "image.json").write_text("{"),
    "description a list": lambda found: (found.kernel.parent / "image.json").write_text("[]"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_image_is_seen(name: str, built: DemoImage, tmp_path: Path) -> None:
    copy = tmp_path / "image"
    shutil.copytree(built.kernel.parent, copy)
    there = image._load(copy)
    assert there is not None
    assert there.host_key == built.host_key
    DAMAGES[name](there)
    assert image._load(copy) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"key": 1}', '{"key": "../../.."}', '{"key": null}', "\xff"]
)
def test_a_damaged_note_of_the_current_image_is_no_harm(
    text: str, built: DemoImage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = cache / "vmconnect/demo/current.json"
    before = json.loads(note.read_text())
    with contextlib.suppress(ValueError):
        if isinstance(value := json.loads(text), dict) and value:
            text = json.dumps({**before, **value})
    note.write_text(text, encoding="latin-1")
    monkeypatch.setattr(image, "_make", refused)  # the image itself is found by its key
    assert build() == built
    assert json.loads(note.read_text()) == before


def test_a_damaged_image_is_built_again_with_new_keys(built: DemoImage, cache: Path) -> None:
    before = (built.host_key, built.client_key.read_bytes())
    there = contents(cache)
    damage_initrd(built)
    again = build()
    assert again.kernel == built.kernel
    assert again.host_key != before[0]
    assert again.client_key.read_bytes() != before[1]
    assert contents(cache) == there


def test_an_interrupted_build_leaves_no_half_image(own_cache: Path, building: Builder) -> None:
    room = own_cache / "vmconnect/demo"
    for number, step in ((signal.SIGKILL, "Writing the image"), (signal.SIGINT, "Unpacking")):
        with building(own_cache) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(step):
                    process.send_signal(number)
                    break
            process.communicate(timeout=WAIT)
        assert process.returncode == -number
        assert not (room / "current.json").exists()
        left = [path.name for path in (room / "images").iterdir()]
        # Who was killed could not clear up; the next one has.
        assert len(left) == (number is signal.SIGKILL)
        assert all(name.startswith(".new-") for name in left)
    with building(own_cache) as process:
        out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (0, "")
    key = out.splitlines()[-1].removeprefix("KEY ")
    assert [path.name for path in (room / "images").iterdir()] == [key]
    assert image._load(room / "images" / key) is not None


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a file system of that size; needs root."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        options = f"size={megabytes}m,mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", name], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


# What fails first: unpacking a package, compiling Python's library, writing the initramfs.
@pytest.mark.parametrize("spare", [20, 170, 195])
def test_a_full_disk_is_told_and_nothing_is_left(
    spare: int,
    demo_image: DemoImage,
    found: tuple[Package, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = sum(each.size for each in found) >> 20
    with small_disk(packages + spare) as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        monkeypatch.setattr(image, "resolve", lambda: found)
        fill(disk, demo_image)
        with pytest.raises(ResourceError, match=r"No space left on device") as caught:
            build()
        assert contents(disk) == {"packages", "images", "lock"}
    assert "\n" not in str(caught.value)
    assert "500 MB" in str(caught.value)
    assert "XDG_CACHE_HOME" in str(caught.value)


def test_a_disk_too_full_for_the_packages_keeps_no_part_of_them(
    found: tuple[Package, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nPATH=/bin:/usr/bin\nexec head -c 9000000 /dev/zero >some.deb\n")
    apt.chmod(0o755)
    with small_disk(4) as disk:
        monkeypatch.setattr(image, "resolve", lambda: found)
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(disk))
            patch.setenv("PATH", str(tmp_path))
            with pytest.raises(ResourceError, match=r"No space left on device.*500 MB"):
                build()
        assert contents(disk) == {"packages", "images", "lock"}
        assert list((disk / "vmconnect/demo/packages").iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/vmconnect", "/dev/null"])
def test_a_cache_that_cannot_be_made_is_told(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", where)
    with pytest.raises(ResourceError, match=f"cannot make the directory {where}"):
        build()


def test_a_cache_that_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "vmconnect/demo"
    room.mkdir(parents=True)
    room.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match="open to other users"):
        build()
