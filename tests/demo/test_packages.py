"""What apt says and does, by programs that stand in for it."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.demo import packages
from vmconnect.demo.packages import Package, fetch, lists_signature, resolve, unpack
from vmconnect.errors import MissingDependencyError, ResourceError
from vmconnect.progress import Silent

# Of apt-cache depends --recurse --important, as Ubuntu 24.04 would answer: time64 names, a kernel
# in two packages, alternatives, virtual packages with their providers.
NOBLE = """\
linux-image-virtual
  Depends: linux-image-6.8.0-31-generic
  Depends: linux-base
linux-image-6.8.0-31-generic
  Depends: kmod
 |Depends: linux-modules-6.8.0-31-generic
  Depends: linux-modules-6.8.0-31-lowlatency
busybox-static
openssh-server
  PreDepends: debconf
  Depends: adduser
 |Depends: <libfirst9>
    libfirst9-provider
 |Depends: libssl3t64
  Depends: libssl3
  Depends: libpam0g
  Depends: zlib1g
 |Depends: init-system-helpers
  Depends: <default-logind>
    libpam-systemd
openssh-sftp-server
  Depends: libc6
socat
  Depends: libc6
qemu-guest-agent
  Depends: libglib2.0-0t64
  Depends: <liburing>
python3-minimal
  PreDepends: python3.12-minimal
libpython3-stdlib
  Depends: libpython3.12-stdlib
libpython3.12-stdlib
  Depends: libpython3.12-minimal
  Depends: media-types
python3.12-minimal
  Depends: libpython3.12-minimal
libc6
  Depends: libgcc-s1
libssl3t64
  Depends: libc6
"""
DIGEST = "SHA256:" + "0" * 64
CHOSEN = {
    *("busybox-static", "linux-image-6.8.0-31-generic", "linux-modules-6.8.0-31-generic"),
    *("openssh-server", "openssh-sftp-server", "socat", "qemu-guest-agent"),
    *("libssl3t64", "libpam0g", "zlib1g", "libc6", "libgcc-s1", "libglib2.0-0t64"),
    *("python3.12-minimal", "libpython3.12-minimal", "libpython3.12-stdlib"),
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an otherwise empty PATH, for programs that stand in for apt's."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def says(directory: Path, name: str, text: str) -> None:
    program(directory, name, f"printf %s {shlex.quote(text)}")


URIS = """shift 2
for name; do printf "'http://host/pool/%s.deb' %s_1%%3a2-3_amd64.deb 12 SHA256:%064d\\n" $name $name 0; done
"""  # noqa: E501 (a script)


def test_ubuntu_s_names_are_followed(programs: Path) -> None:
    says(programs, "apt-cache", NOBLE)
    program(programs, "apt-get", URIS)
    found = resolve()
    assert {each.filename.split("_")[0] for each in found} == CHOSEN
    assert found[0] == Package("busybox-static_1%3a2-3_amd64.deb", 12, DIGEST)
    assert list(found) == sorted(found, key=lambda each: each.filename)


def test_a_package_that_apt_does_not_know_is_named(programs: Path) -> None:
    says(programs, "apt-cache", NOBLE.replace("\nsocat\n", "\nnetcat\n"))
    with pytest.raises(ResourceError, match=r"no package socat.*apt-get update"):
        resolve()


def test_empty_lists_are_told(programs: Path) -> None:
    says(programs, "apt-cache", "")
    with pytest.raises(ResourceError, match="no package linux-image-cloud-amd64, busybox-static"):
        resolve()


def test_without_apt_the_package_is_named(programs: Path) -> None:
    assert list(programs.iterdir()) == []
    with pytest.raises(MissingDependencyError, match="apt-cache is not installed"):
        resolve()


def test_apt_s_own_error_is_passed_on(programs: Path) -> None:
    says(programs, "apt-cache", NOBLE)
    program(programs, "apt-get", "echo 'E: The list is locked' >&2; exit 100")
    with pytest.raises(ResourceError, match="apt-get failed: E: The list is locked"):
        resolve()


@pytest.mark.parametrize(
    "line",
    [
        "'http://host/x.deb' ../../etc/passwd 12 " + DIGEST,
        "'http://host/x.deb' .deb 12 " + DIGEST,
        "'http://host/x.deb' x.deb 12 " + DIGEST,  # no version
        "'http://host/x.deb' -o_1_amd64.deb 12 " + DIGEST,
        f"'http://host/x.deb' x_1_amd64.deb {1 << 40} {DIGEST}",
        "'http://host/x.deb' x_1_amd64.deb 12 MD5Sum:0123",
        "'http://host/x.deb' x_1_amd64.deb 12 ",
        "'http://host/x.deb' x_1_amd64.deb -12 " + DIGEST,
        "'http://host/x.deb",
    ],
)
def test_a_strange_offer_is_refused(programs: Path, line: str) -> None:
    says(programs, "apt-cache", NOBLE)
    says(programs, "apt-get", f"{line}\n")
    with pytest.raises(ResourceError):
        resolve()


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=200) | st.text("' _.:12abSHA56ed\n", max_size=120))
def test_any_text_of_apt_get(text: str) -> None:
    try:
        found = list(packages._parse_uris(text))
    except ResourceError:
        return
    assert all("/" not in each.filename for each in found)


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=200) | st.text(" |<>:DependsPr\nab", max_size=200))
def test_any_text_of_apt_cache(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "_run", lambda _: text)
        depends = packages._depends(["a"])
    assert all(needed.strip() == needed for each in depends.values() for needed in each)


class Watched(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.amounts: list[tuple[int, int | None]] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def advance(self, done: int, total: int | None = None) -> None:
        self.amounts.append((done, total))


def package(name: str, data: bytes) -> Package:
    digest = hashlib.sha256(data).hexdigest()
    return Package(f"{name}_1%3a2-3_amd64.deb", len(data), f"SHA256:{digest}")


def test_fetching_tells_its_bytes_and_fetches_once(programs: Path, tmp_path: Path) -> None:
    data = bytes(300_000)
    wanted = [package("a", data), package("b", data)]
    program(
        programs,
        "apt-get",
        f'echo "$@" >>{tmp_path}/calls; for name in a b; do'
        " head -c 300000 /dev/zero >${name}_1%3a2-3_amd64.deb; sleep 0.3; done",
    )
    watched, room = Watched(), tmp_path / "room"
    paths = fetch(wanted, room, watched)
    assert [path.read_bytes() for path in paths] == [data, data]
    assert watched.steps == ["Fetching 2 packages"]
    done = [amount for amount, _ in watched.amounts]
    assert done == sorted(done)
    assert 300_000 in done
    assert watched.amounts[-1] == (600_000, 600_000)
    assert fetch(wanted, room, watched) == paths
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[-3:] for call in calls] == [["download", "a=1:2-3", "b=1:2-3"]]
    assert sorted(room.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo nonsense >a_1%3a2-3_amd64.deb", "apt did not fetch a_1%3a2-3_amd64.deb as its"),
        ("true", "apt did not fetch a_1%3a2-3_amd64.deb as its"),
        ("echo E: no network; exit 100", "apt-get failed: E: no network .is there a network"),
        ("kill -9 $$", "apt-get failed: no reason given"),
    ],
)
def test_a_failed_fetch_leaves_nothing(
    programs: Path, tmp_path: Path, script: str, message: str
) -> None:
    program(programs, "apt-get", script)
    room = tmp_path / "room"
    with pytest.raises(ResourceError, match=message):
        fetch([package("a", b"data")], room, Silent())
    assert list(room.iterdir()) == []


def test_a_package_that_does_not_unpack_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad_1_amd64.deb"
    bad.write_bytes(b"!<arch>\nnot really")
    with pytest.raises(ResourceError, match="dpkg-deb failed: dpkg-deb: error"):
        unpack([bad], tmp_path / "tree", Silent())


def test_unpacking_tells_its_bytes(programs: Path, tmp_path: Path) -> None:
    program(programs, "dpkg-deb", "true")
    paths = [tmp_path / "a.deb", tmp_path / "b.deb"]
    for size, path in enumerate(paths, 1):
        path.write_bytes(bytes(size * 1000))
    watched = Watched()
    unpack(paths, tmp_path, watched)
    assert watched.steps == ["Unpacking 2 packages"]
    assert watched.amounts == [(0, 3000), (1000, 3000), (3000, 3000)]


def test_the_signature_sees_lists_sources_and_preferences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "_APT_STATE", (tmp_path / "lists", tmp_path / "missing"))
    seen = {lists_signature()}
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/Packages").write_text("one")
    seen.add(lists_signature())
    (tmp_path / "lists/Packages").write_text("three")
    seen.add(lists_signature())
    assert len(seen) == 3
    assert lists_signature() in seen


def test_the_host_s_apt_leads_to_what_the_guest_needs() -> None:
    names = {each.filename.split("_")[0] for each in resolve()}
    assert {"busybox-static", "openssh-server", "qemu-guest-agent", "libc6"} <= names
    assert sum(name.startswith("linux-image-") for name in names) == 1
