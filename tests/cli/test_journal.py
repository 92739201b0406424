"""``vmconnect journal``: what a person sees of it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vmconnect.cli import main
from vmconnect.journal import Entry, JournalFile


def time_of(ago: timedelta) -> str:
    return (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def entry(what: str, machine: str = "web01", ago: float = 0.0, **more: object) -> Entry:
    return Entry(time_of(timedelta(hours=ago)), what, machine, **more)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFile:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return JournalFile()


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["journal", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_nothing_is_noted_yet(journal: JournalFile, capsys: pytest.CaptureFixture[str]) -> None:
    (heads,) = shown(capsys)
    assert heads.split() == ["WHEN", "WHO", "MACHINE", "WHAT", "RESULT", "TOOK", "DETAILS"]
    assert shown(capsys, "--json") == []


def test_the_table(journal: JournalFile, capsys: pytest.CaptureFixture[str]) -> None:
    login = {"user": "root", "method": "key k"}
    run = {"program": "tar", "arguments": 3, "exit_code": 2}
    for each in (
        entry("guest.login", user="ann", seconds=0.5271, details=login),
        entry("guest.run", user="root", sudo_user="ann", seconds=75, sent=2048, details=run),
        entry("guest.run", uid=7, details={"argv": ["sh", "-c", "a b"], "signal": "KILL"}),
        entry("guest.put", sudo_user="root", user="root", details={"local": "a", "remote": "/b"}),
        entry("power.off", error="DeadlineError", message="no answer", details={"x": [1]}),
        entry("media.insert", details={"image": "a.iso", "force": True}),
        entry(
            "guest.copy",
            details={"source": "web01", "from": "/a", "target": "web02", "to": "/b"},
        ),
        entry("guest.start_job", details={"program": "make", "arguments": 1, "job": "k3f9qa2w"}),
    ):
        journal.append(each)
    rows = [line[21:].split(None, 3) for line in shown(capsys)]
    whole = [" ".join(" ".join(row).split()) for row in rows[1:]]
    assert whole == [
        "ann web01 guest.login ok 527 ms as root by key k",
        "ann as root web01 guest.run ok 0:01:15 tar …, exit code 2, sent 2.0 KiB",
        "7 web01 guest.run ok - sh -c 'a b', ended by SIGKILL",
        "root web01 guest.put ok - a, in the guest /b",
        "- web01 power.off DeadlineError - no answer",
        "- web01 media.insert ok - image a.iso, force true",
        "- web01 guest.copy ok - web01:/a to web02:/b",
        "- web01 guest.start_job ok - make …, job k3f9qa2w",
    ]


def test_hostile_words_do_not_drive_the_terminal(
    journal: JournalFile, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a\x1b[31m\nb\u202e\udc80"
    journal.append(Entry(evil, evil, evil, evil, user=evil, error=evil, message=evil))
    journal.append(
        entry(
            "guest.run",
            evil,
            sudo_user=evil,
            details={"program": evil, "arguments": evil, "local": [evil], "remote": 3, evil: evil},
        )
    )
    journal.append(entry("x", details={"argv": evil, "exit_code": evil, "signal": {evil: evil}}))
    lines = shown(capsys)
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable()
    for line in shown(capsys, "--json"):
        assert line.isascii()
        json.loads(line)


def test_it_is_picked_from(journal: JournalFile, capsys: pytest.CaptureFixture[str]) -> None:
    uuid = "0a0b0c0d-0001-4002-8003-000000000004"
    for number in range(60, 0, -1):
        journal.append(entry("power.on", f"web{number:02}", ago=number))
    journal.append(entry("power.on", "db", target="qemu:/run/db.qmp", uuid=uuid))

    def machines(*words: str) -> list[str]:
        return [json.loads(line)["machine"] for line in shown(capsys, *words, "--json")]

    assert len(machines()) == 50
    assert len(machines("-n", "55")) == 55
    assert machines("-n", "2") == ["web01", "db"]
    assert machines("web07") == ["web07"]
    assert machines("web*", "-n", "3") == ["web03", "web02", "web01"]
    assert machines(uuid.upper()) == machines("qemu:/run/db.qmp") == ["db"]
    assert machines("--since", "2.5h") == ["web02", "web01", "db"]
    assert machines("--since", "150m", "-n", "1") == ["db"]
    assert len(machines("--since", "1w")) == 61
    moment = datetime.now().astimezone() - timedelta(hours=3, minutes=30)
    assert len(machines("--since", moment.strftime("%Y-%m-%dT%H:%M"))) == 4
    assert len(machines("--since", (moment - timedelta(days=30)).strftime("%Y-%m-%d"))) == 61


@pytest.mark.parametrize(
    "words", [["--since", "soon"], ["--since", "1e999h"], ["-n", "0"], ["-n", "x"], ["-n", "-1"]]
)
def test_what_cannot_be_read_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["journal", *words])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_who_follows_sees_what_comes(journal: JournalFile, form: list[str]) -> None:
    journal.append(entry("power.on", "old"))
    process = subprocess.Popen(
        [sys.executable, "-m", "vmconnect", "journal", "--follow", "web*", "-n", "500", *form],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        journal.append(entry("power.off", "db"))
        numbers = range(100)
        for number in numbers:
            journal.append(entry("power.off", f"web{number:03}"))
        seen: list[str] = []
        while len(seen) < len(numbers):
            line = process.stdout.readline()
            assert line
            seen += [word.strip('",') for word in line.split() if "web" in word]
        assert seen == [f"web{number:03}" for number in numbers]
    finally:
        process.terminate()
        process.communicate()
