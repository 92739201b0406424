"""Background jobs in a real guest."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator

import pytest

import vmconnect
from tests.broker.rig import Rig
from tests.direct.test_run import CATCHER, living, wait_gone
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest, pump
from vmconnect.direct.job import Job
from vmconnect.errors import DeadlineError, GuestError, StateError, TargetError

pytestmark = pytest.mark.guest

WAIT = 60.0


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    with vmconnect.connect(demo_machine.name) as session:
        guest = session.guest(timeout=WAIT, wait=True)
        yield guest
        guest.run("rm -rf /root/.local/state/vmconnect /home/guest/.local/state/vmconnect")


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(os.environ)
    try:
        yield rig
    finally:
        rig.stop()


def test_a_job_gives_what_a_command_gives(guest: Guest) -> None:
    noise = secrets.token_bytes(300_000)
    script = 'pwd >&2; printf %s "$A" >&2; umask >&2; cat; exit 42'
    job = guest.jobs().start(script, env={"A": "b\nc"}, cwd="/srv", stdin=noise)
    result = job.result(WAIT)
    assert result.stdout == noise
    mask = guest.run(["umask"]).stdout
    assert result.stderr == b"/srv\nb\nc" + mask
    assert result.exit_code == 42
    assert result.argv == ("sh", "-c", script)


def test_a_job_outlives_the_connection(demo_machine: DemoMachine, guest: Guest) -> None:
    with vmconnect.connect(demo_machine.name) as session:
        other = session.guest()
        job = other.jobs().start("read x </tmp/go; echo went")
        name = job.name
        connection = other._connection
        assert connection is not None
        connection.close()
    guest.run("mkfifo /tmp/go 2>/dev/null; :")
    again = guest.jobs().start("mkfifo /tmp/go2; read x </tmp/go2; echo went")
    assert again.status().state == "running"
    deadline = Deadline(WAIT)
    while not guest.run(["test", "-p", "/tmp/go2"]).ok:
        deadline.check("waiting for the job's FIFO")
    guest.run("echo >/tmp/go2; rm /tmp/go2")
    assert again.result(WAIT).stdout == b"went\n"
    assert guest.jobs().get(name).status().state in {"running", "ended"}
    guest.jobs().get(name).kill()
    guest.run(["rm", "-f", "/tmp/go"])


def test_nobody_else_may_look_at_it(guest: Guest) -> None:
    job = guest.jobs("guest").start("id -un; pwd")
    assert job.result(WAIT).stdout == b"guest\n/home/guest\n"
    place = "/home/guest/.local/state/vmconnect/jobs"
    assert guest.run(["stat", "-c", "%a %U", place, f"{place}/{job.name}"]).text == (
        "700 guest\n700 guest\n"
    )
    assert job.name not in {each.name for each in guest.jobs().list()}
    assert job.name in {each.name for each in guest.jobs("guest").list()}


def test_what_it_writes_is_bounded_and_it_runs_on(guest: Guest) -> None:
    job = guest.jobs().start("head -c 3000000 /dev/zero; echo done >&2", kept_bytes=10_240)
    result = job.result(WAIT)
    assert (result.exit_code, result.stdout, result.stderr) == (0, bytes(10_240), b"done\n")
    assert job.status().truncated


def test_what_is_collected_into_memory_is_bounded(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = guest.jobs().start("head -c 3000000 /dev/zero; head -c 2000 /dev/zero >&2")
    assert job.wait(WAIT).exit_code == 0
    monkeypatch.setattr(pump, "OUTPUT_LIMIT_BYTES", 2_999_999)
    with pytest.raises(GuestError, match=r"more than 2 MiB.*take the output with a sink") as raised:
        job.result(WAIT)
    assert raised.value.machine == guest.machine
    taken = bytearray()
    result = job.result(WAIT, stdout=taken.extend)
    assert taken == bytes(3_000_000)
    assert (result.stdout, result.stderr) == (b"", bytes(2000))
    assert job.result(WAIT, stdout=len, stderr=taken.extend).stderr == b""
    assert len(taken) == 3_002_000


def test_output_is_followed(guest: Guest) -> None:
    job = guest.jobs().start("for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done; exit 2")
    out, err = bytearray(), bytearray()
    job.output(out.extend, err.extend, follow=True, timeout=WAIT)
    assert (bytes(out), bytes(err)) == (b"1\n2\n3\n", b"e1\ne2\ne3\n")
    assert job.status().exit_code == 2


@pytest.mark.parametrize("name", ["INT", "QUIT", "USR1"])
def test_signals_arrive(guest: Guest, name: str) -> None:
    job = guest.jobs().start(["python3", "-c", CATCHER, f"SIG{name}"])
    wait_for_output(job, b"up\n")
    assert job.signal(name)
    result = job.result(WAIT)
    assert (result.exit_code, result.stdout) == (7, f"up\ngot SIG{name}\n".encode())
    assert not job.signal(name)


def wait_for_output(job: Job, text: bytes) -> None:
    deadline = Deadline(WAIT)
    while True:
        out = bytearray()
        job.output(out.extend, out.extend)
        if text in out:
            return
        deadline.check("waiting for the job's output")


def test_kill_ends_all_that_it_has_started(guest: Guest) -> None:
    job = guest.jobs().start("trap '' TERM HUP; setsid sleep 6201 & sleep 6202 & sleep 6203; :")
    with pytest.raises(DeadlineError, match="runs on"):
        job.wait(0.2)
    with pytest.raises(StateError, match="runs"):
        job.forget()
    job.kill()
    assert job.wait(WAIT).exit_code == 137
    assert living(guest, "sleep 620") == []
    job.forget()
    with pytest.raises(TargetError, match="there is no job"):
        job.status()


def test_its_time_is_kept_by_the_guest(guest: Guest) -> None:
    job = guest.jobs().start(
        "trap '' TERM HUP; (sleep 6210; :) & sleep 6211; sleep 6212", timeout=1
    )
    status = job.wait(WAIT)
    assert status.timed_out
    assert living(guest, "sleep 621") == []
    quick = guest.jobs().start(["true"], timeout=6213)
    assert not quick.wait(WAIT).timed_out
    wait_gone(guest, "sleep 6213")


def test_one_whose_watcher_was_killed_is_lost(guest: Guest) -> None:
    job = guest.jobs().start(["sleep", "6220"])
    guest.run(f"kill -9 $(cat ~/.local/state/vmconnect/jobs/{job.name}/pid)")
    assert job.wait(WAIT).state == "lost"
    with pytest.raises(GuestError, match="is lost"):
        job.result(WAIT)
    job.kill()
    wait_gone(guest, "sleep 6220")
    job.forget()


def test_without_a_home_that_can_be_written(guest: Guest) -> None:
    home = {"HOME": "/proc", "XDG_STATE_HOME": "/proc/x"}
    jobs = guest.jobs()
    original = jobs._run

    def elsewhere(*words: str, **options: object) -> object:
        return original(*words, **{**options, "env": home})  # type: ignore[arg-type]

    jobs._run = elsewhere  # type: ignore[method-assign, assignment]
    job = jobs.start(["echo", "here"])
    assert job.result(WAIT).stdout == b"here\n"
    assert guest.run(["stat", "-c", "%a", "/tmp/vmconnect-0"]).text == "700\n"
    # Somebody else's directory of that name is not trusted.
    guest.run(
        "rm -rf /tmp/vmconnect-0; mkdir -m 777 /tmp/vmconnect-0; chown guest /tmp/vmconnect-0"
    )
    with pytest.raises(GuestError, match="no place for a private directory"):
        jobs.start(["true"])
    guest.run(["rm", "-rf", "/tmp/vmconnect-0"])


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 40, "$(reboot)"])
def test_no_name_of_a_job(guest: Guest, name: str) -> None:
    with pytest.raises(TargetError):
        guest.jobs().get(name)


def test_without_setsid(guest: Guest) -> None:
    # A PATH of everything but setsid.
    guest.run(
        "mkdir /tmp/bin; cd /tmp/bin; for each in $(busybox --list); do "
        "ln -s /usr/bin/busybox $each; done; rm setsid"
    )
    script = "echo out; trap '' HUP; sleep 6230; echo over"
    job = guest.jobs().start(script, env={"PATH": "/tmp/bin"})
    wait_for_output(job, b"out\n")
    job.kill()
    assert job.wait(WAIT).state == "ended"
    wait_gone(guest, "sleep 6230")
    guest.run(["rm", "-rf", "/tmp/bin"])


# The command line.


def test_the_command_line(rig: Rig, demo_machine: DemoMachine) -> None:
    name = demo_machine.name
    script = "echo out; echo err >&2; sleep 0.5; exit 3"
    rig.warm(name, "true")
    for each in (rig, rig.with_(VMCONNECT_BROKER="0")):
        code, out, err = each.run("exec", "--detach", name, "--", "sh", "-c", script)
        assert (code, err) == (0, b"")
        job = out.decode().strip()
        listed = each.run("jobs", name)[1].decode()
        assert job in listed
        assert each.run("jobs", "wait", name, job) == (3, b"", b"")
        assert each.run("jobs", "output", "-f", name, job) == (0, b"out\n", b"err\n")
        assert each.run("jobs", "collect", name, job) == (3, b"out\n", b"err\n")
        shown = json.loads(each.run("jobs", "show", "--json", name, job)[1])
        assert shown["argv"] == ["sh", "-c", script]
        assert shown["exit_code"] == 3
        assert each.run("jobs", "forget", name, job) == (0, b"", b"")
        code, _out, err = each.run("jobs", "show", name, job)
        assert code == 1
        assert b"there is no job" in err


def test_jobs_are_ended_and_forgotten(rig: Rig, demo_machine: DemoMachine) -> None:
    name = demo_machine.name
    words = ["exec", "--detach", "-u", "guest", name, "--", "sleep", "6240"]
    job = rig.run(*words)[1].decode().strip()
    assert rig.run("jobs", "kill", "-u", "guest", "-s", "INT", name, job) == (0, b"", b"")
    assert rig.run("jobs", "wait", "-u", "guest", name, job)[0] == 130
    code, _out, err = rig.run("jobs", "kill", "-u", "guest", "-s", "INT", name, job)
    assert (code, err) == (1, f"vmconnect: the job {job} does not run\n".encode())
    assert rig.run("jobs", "forget", "-u", "guest", "--ended", name) == (0, b"", b"")
    assert rig.run("jobs", "list", "-u", "guest", "--json", name) == (0, b"[]\n", b"")


def test_there_are_no_more_than_so_many(guest: Guest) -> None:
    place = "/root/.local/state/vmconnect/jobs"
    there = len(guest.jobs().list())
    make = f"for n in $(seq {there + 1} 255); do mkdir {place}/filler$n; done"
    try:
        assert guest.run(f"mkdir -p {place}; {make}").ok
        last = guest.jobs().start(["true"])
        last.wait(WAIT)
        with pytest.raises(GuestError, match="there are too many jobs") as caught:
            guest.jobs().start(["true"])
        assert caught.value.hint == "vmconnect jobs forget --ended"
        last.forget()
        guest.jobs().start(["true"]).wait(WAIT)
    finally:
        guest.run(f"rm -rf {place}/filler*")
