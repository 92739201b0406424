from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.facts import (
    FACTS_SCRIPT,
    Facts,
    Filesystem,
    Interface,
    agent_facts,
    parse_facts,
)

# What the script writes in a guest with two disks, and a network share with a blank in its name.
WRITTEN = b"""\
hostname web01
kernel Linux 6.1.0-9-cloud-amd64
architecture x86_64
os PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
os ID=debian
os VERSION_ID='12'
os NAME="no end
uptime 4077.29
cpus 4
memory Total 2097152 kB
memory Available 1048576 kB
link lo 00:00:00:00:00:00
link eth0 52:54:00:12:34:56
address 1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
address 2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0
address 2: eth0    inet6 fe80::1/64 scope link
address 3: veth1@if2    inet 198.51.100.1/32 scope global veth1
mount /dev/vda1 / ext4 rw,relatime 0 0
mount tmpfs /run tmpfs rw 0 0
mount host /mnt/two\\040words 9p rw 0 0
df /dev/vda1 10000 2500 7500 25% /
df tmpfs 100 0 100 0% /run
df host 20000 10000 10000 50% /mnt/two words
df none 0 0 0 - /proc
"""
FACTS = Facts(
    hostname="web01",
    os_id="debian",
    os_name="Debian GNU/Linux 12 (bookworm)",
    os_version="12",
    kernel="Linux 6.1.0-9-cloud-amd64",
    architecture="x86_64",
    uptime_s=4077.29,
    cpus=4,
    memory_bytes=2 << 30,
    memory_available_bytes=1 << 30,
    interfaces=(
        Interface("lo", "00:00:00:00:00:00", ("127.0.0.1/8",)),
        Interface("eth0", "52:54:00:12:34:56", ("192.0.2.7/24", "fe80::1/64")),
        Interface("veth1", "", ("198.51.100.1/32",)),
    ),
    filesystems=(
        Filesystem("/", "/dev/vda1", "ext4", 10000 << 10, 2500 << 10),
        Filesystem("/mnt/two words", "host", "9p", 20000 << 10, 10000 << 10),
    ),
)


def test_what_a_guest_tells() -> None:
    assert parse_facts(WRITTEN) == FACTS


def test_a_guest_that_tells_little() -> None:
    assert parse_facts(b"hostname bsd\nkernel FreeBSD 14\ncpus \n") == Facts(
        hostname="bsd", kernel="FreeBSD 14"
    )
    assert parse_facts(b"") == Facts()


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]])
def test_the_script_on_this_host(shell: list[str]) -> None:
    import shutil

    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    done = subprocess.run([*shell, "-c", FACTS_SCRIPT], capture_output=True, check=True)
    assert done.stderr == b""
    facts = parse_facts(done.stdout)
    import os

    assert facts.hostname == os.uname().nodename
    assert facts.architecture == os.uname().machine
    assert facts.uptime_s is not None
    assert facts.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    root = next(each for each in facts.filesystems if each.mount == "/")
    info = os.statvfs("/")
    assert root.size_bytes == info.f_blocks * info.f_frsize


def check_bounded(facts: Facts) -> None:
    text = json.dumps(dataclasses.asdict(facts), ensure_ascii=False)
    assert text.isprintable()
    assert len(facts.interfaces) <= 256
    assert len(facts.filesystems) <= 256
    assert all(len(each) <= 256 for each in (facts.hostname, facts.kernel, facts.os_name))


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    check_bounded(parse_facts(data))


@given(st.lists(st.sampled_from(WRITTEN.splitlines()) | st.binary()), st.data())
def test_any_lines(lines: list[bytes], data: st.DataObject) -> None:
    words = [word for line in lines for word in line.split(b" ")]
    mixed = data.draw(st.permutations(words)) if len(words) < 50 else words
    check_bounded(parse_facts(b"\n".join(lines)))
    check_bounded(parse_facts(b" ".join(mixed).replace(b"  ", b"\n")))


def test_a_hostile_guest() -> None:
    flood = b"".join(b"link e%d aa\naddress 1: e%d inet 1/1\n" % (n, n) for n in range(5000))
    flood += b"".join(b"df d 9 9 9 9 /%d\n" % n for n in range(5000))
    facts = parse_facts(flood + b"hostname \x1b]0;x\x07" + b"x" * 9999)
    check_bounded(facts)
    assert facts.hostname.startswith("?]0;x?x")
    assert parse_facts(b"cpus 99999999999999999999\nuptime nan\nuptime inf").cpus is None
    assert parse_facts(b"uptime nan").uptime_s is None


class _Agent(GuestAgent):
    """Answers in place of an agent with whatever it was given: a hostile one, which is not real."""

    def __init__(self, answer: Callable[[str], Any]):
        self.machine = "played"
        self._answer = answer

    def execute(self, command: str, **_: Any) -> Any:
        return self._answer(command)

    def read_file(self, *_arguments: Any, **_options: Any) -> bytes:
        return b"uptime nan -1 \xff"


answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(
            ["name", "ip-addresses", "ip-address", "prefix", "total-bytes", "used-bytes", "type"]
        ),
        inner,
    ),
)  # fmt: skip


@given(answers)
def test_whatever_an_agent_answers(answer: Any) -> None:
    check_bounded(agent_facts(_Agent(lambda _: answer)))
