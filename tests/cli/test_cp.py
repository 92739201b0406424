"""``vmconnect cp`` over SSH: real sshds, whose guests are all this host, behind vsock sockets."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.direct.ssh_servers import SshServers, ssh_servers
from vmconnect.cli import main

# More than is sent in one piece.
SIZE = 300_000


@pytest.fixture(scope="module")
def servers() -> Iterator[SshServers]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, ssh_servers(Path(name), 2) as servers:
        yield servers


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of anybody."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory that is this host's."""
    return directory(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory that is a guest's."""
    return directory(tmp_path / "there")


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def file(path: Path, size: int = SIZE) -> Path:
    path.write_bytes(secrets.token_bytes(size))
    return path


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


class Cli:
    """The command, in this process, let in to all machines."""

    def __init__(self, servers: SshServers, capfd: pytest.CaptureFixture[str]):
        self.servers = servers
        self._capfd = capfd

    def at(self, number: int, path: Path) -> str:
        """Return what is typed for a path in the guest of that number."""
        return f"[{self.servers.target(f'vm{number:04}')}]:{path}"

    def words(self, *words: str | Path) -> list[str]:
        login = ["-i", str(self.servers.identity_file), "--accept-new-host-key"]
        return ["cp", *login, *map(str, words)]

    def __call__(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        """Return what is on standard output and standard error, targets shortened to names."""
        result = main(self.words(*words))
        out, err = self._capfd.readouterr()
        assert result == code, err
        return out, re.sub(rf"vsock-mux{self.servers.directory}/(vm\d+)\.vsock", r"\1", err)

    def told(self, *words: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """Return what ``--json`` prints."""
        told: list[dict[str, Any]] = json.loads(self("--json", *words, code=code)[0])
        return told

    def on_a_terminal(self, *words: str | Path) -> tuple[int, str]:
        """Return the exit code, and all that was written to a terminal; a bar comes at once."""
        program = (
            "import sys\n"
            "from vmconnect.cli import main, progress\n"
            "progress.Bar.__init__.__defaults__ = ('', 0.0)\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        child, terminal = pty.fork()
        if child == 0:
            os.environ["TERM"] = "xterm"
            argv = [sys.executable, "-c", program, *self.words(*words)]
            os.execv(argv[0], argv)  # noqa: S606
        shown = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
            while data := os.read(terminal, 4096):
                shown += data
        os.close(terminal)
        _pid, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.fixture
def cli(servers: SshServers, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(servers, capfd)


# Where from and where to.


@pytest.mark.parametrize("way", ["ssh", "sftp"])
def test_from_one_guest_to_another(cli: Cli, here: Path, there: Path, way: str) -> None:
    source = directory(here / "site")
    file(source / "large")
    file(source / "small", 10)
    (source / "link").symlink_to("small")
    out, err = cli("-v", "--via", way, cli.at(1, source), cli.at(2, there))
    assert out == ""
    assert [line.partition(" logged in")[0] for line in err.splitlines()[:2]] == [
        "vmconnect: vm0002:",
        "vmconnect: vm0001:",
    ]
    assert err.endswith(f" by {way.upper()}\n")
    assert names(there / "site") == ["large", "link", "small"]
    assert (there / "site" / "large").read_bytes() == (source / "large").read_bytes()
    assert (there / "site" / "link").readlink() == Path("small")


def test_what_one_guest_cannot_read_and_the_other_cannot_write(
    cli: Cli, here: Path, there: Path
) -> None:
    file(here / "good")
    _, err = cli(cli.at(1, here / "bad"), cli.at(1, here / "good"), cli.at(2, there), code=1)
    assert err == f"vmconnect: vm0001: cannot copy {here}/bad: No such file or directory\n"
    assert names(there) == ["good"]
    directory(here / "good2")
    directory(there / "taken")
    file(here / "taken")
    _, err = cli(cli.at(1, here / "taken"), cli.at(2, there), code=1)
    assert err == (
        f"vmconnect: vm0002: cannot copy {there}/taken: there is a directory of that name\n"
    )


def test_sources_on_several_machines_into_one_directory(cli: Cli, here: Path, there: Path) -> None:
    for name in ("local", "one", "two"):
        file(here / name)
    sources: list[str | Path] = [here / "local", cli.at(1, here / "one"), cli.at(2, here / "two")]
    told = cli.told(*sources, cli.at(1, there))
    assert [(each["files"], each["size"], each["way"]) for each in told] == [(1, SIZE, "SSH")] * 3
    assert names(there) == ["local", "one", "two"]
    assert all((there / each).read_bytes() == (here / each).read_bytes() for each in names(there))

    back = directory(here / "back")
    assert cli(*sources[1:], back) == ("", "")
    assert names(back) == ["one", "two"]
    # Each by itself could be the new name.
    for destination in (there / "new", there / "one"):
        _, err = cli(*sources[1:], cli.at(1, destination), code=1)
        assert "a directory is needed" in err
        _, err = cli(*sources[1:], destination, code=1)
        assert "a directory is needed" in err
    assert names(there) == ["local", "one", "two"]


def test_what_would_go_from_here_to_here_is_refused(cli: Cli, here: Path, there: Path) -> None:
    file(here / "local")
    file(here / "one")
    both: list[list[str | Path]] = [
        [here / "local"],
        [cli.at(1, here / "one"), here / "local"],
    ]
    for sources in both:
        _, err = cli(*sources, there, code=1)
        assert err.startswith(
            f"vmconnect: neither end is in a guest: '{here}/local' and '{there}' "
        )
    assert names(there) == []


# What is left out, and what is not.


@pytest.mark.parametrize("way", ["ssh", "sftp"])
def test_only_what_differs(cli: Cli, here: Path, there: Path, way: str) -> None:
    source = directory(here / "site")
    for name in ("same", "other", "touched"):
        file(source / name)
    options = "--sync", "--via", way
    assert [each["files"] for each in cli.told(*options, source, cli.at(1, there))] == [3]
    assert [each["files"] for each in cli.told(*options, source, cli.at(1, there))] == [0]
    file(source / "other", SIZE + 1)
    os.utime(source / "touched", (1, 1))
    file(there / "site" / "theirs")
    (told,) = cli.told(*options, source, cli.at(1, there))
    assert (told["files"], told["size"]) == (2, 2 * SIZE + 1)
    assert (there / "site" / "other").read_bytes() == (source / "other").read_bytes()
    assert (there / "site" / "touched").stat().st_mtime == 1
    assert "theirs" in names(there / "site")
    # Without it everything goes once more.
    assert [each["files"] for each in cli.told("--via", way, source, cli.at(1, there))] == [3]
    # Out of a guest and between two likewise.
    for when, target in enumerate((str(there), cli.at(2, there))):
        os.utime(file(source / "other"), (when, when))  # SFTP tells whole seconds.
        for files in (1, 0):
            (told,) = cli.told(*options, cli.at(1, source), target)
            assert told["files"] == files


def test_special_files(cli: Cli, here: Path, there: Path) -> None:
    source = directory(here / "site")
    os.mkfifo(source / "fifo", 0o640)
    file(source / "good")
    _, err = cli(source, cli.at(1, there), code=1)
    assert err == f"vmconnect: cannot copy {source}/fifo: it is a FIFO\n"
    assert names(there / "site") == ["good"]
    assert cli("--special", source, cli.at(1, there)) == ("", "")
    found = (there / "site" / "fifo").lstat().st_mode
    assert (stat.S_ISFIFO(found), stat.S_IMODE(found)) == (True, 0o640)
    assert cli("--special", cli.at(1, there / "site"), cli.at(2, there / "again")) == ("", "")
    assert stat.S_ISFIFO((there / "again" / "fifo").lstat().st_mode)
    _, err = cli("--special", "--via", "sftp", source, cli.at(1, there / "third"), code=1)
    assert "fifo: SFTP makes no special files" in err
    assert names(there / "third") == ["good"]


# Which way, and what is told.


def test_a_way_that_is_asked_for_is_the_only_one(cli: Cli, here: Path, there: Path) -> None:
    file(here / "new")
    for way in ("SSH", "SFTP"):
        (told,) = cli.told("--via", way.lower(), here / "new", cli.at(1, there / way))
        assert told["way"] == way
    # No vsock port of these guests but their SSH servers' leads anywhere.
    (told,) = cli.told(here / "new", cli.at(1, there / "any"))
    assert told["way"] == "SSH"
    for words in (
        (here / "new", cli.at(1, there / "vsock")),
        (cli.at(1, here / "new"), there / "vsock"),
        (cli.at(1, here / "new"), cli.at(2, there / "vsock")),
    ):
        _, err = cli("--via", "vsock", *words, code=1)
        assert re.fullmatch(r"vmconnect: vm000[12]: .* vsock .*\n", err)
    assert names(there) == ["SFTP", "SSH", "any"]


def test_what_came_of_it_as_json(cli: Cli, here: Path, there: Path) -> None:
    file(here / "good")
    (told,) = cli.told(here / "good", here / "bad", cli.at(1, there), code=1)
    assert told.pop("seconds") > 0
    assert told == {
        "files": 1,
        "size": SIZE,
        "way": "SSH",
        "failed": 1,
        "failures": [
            {"machine": None, "path": f"{here}/bad", "reason": "No such file or directory"}
        ],
    }
    (told,) = cli.told(cli.at(1, here / "none"), there, code=1)
    machine = cli.servers.target("vm0001")
    assert [each["machine"] for each in told["failures"]] == [machine]


# The bar.


def test_progress_on_a_terminal(cli: Cli, here: Path, there: Path) -> None:
    file(here / "large", 20_000_000)
    code, shown = cli.on_a_terminal(here / "large", cli.at(1, there))
    assert code == 0, shown
    assert "/19.1 MiB" in shown
    assert "━" in shown
    # It leaves nothing behind: its line is erased, and the cursor is seen again. It was one line,
    # however long the target: there is no going up but to erase it.
    assert shown.count("\x1b[1A") == 1
    assert shown.rpartition("\x1b[2K")[2].strip() == ""
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    for target in (str(there), cli.at(2, there)):
        code, shown = cli.on_a_terminal(cli.at(1, here / "large"), target)
        assert (code, "/19.1 MiB" in shown) == (0, True), shown


def test_what_fails_is_told_above_the_bar_word_for_word(cli: Cli, here: Path, there: Path) -> None:
    """No mark of a printer's is made of a name, and a line that is too long is not broken up."""
    source = directory(here / "site")
    file(source / "a-large", 5_000_000)
    name = f"[bold]:smile: {'long ' * 40}"
    os.mkfifo(source / name)
    code, shown = cli.on_a_terminal(source, cli.at(1, there))
    assert code == 1
    assert "━" in shown
    assert f"vmconnect: cannot copy {source}/{name}: it is a FIFO\r\n" in shown


def test_no_progress_where_none_is_wanted(cli: Cli, here: Path, there: Path) -> None:
    file(here / "large", 5_000_000)
    assert cli.on_a_terminal("-q", here / "large", cli.at(1, there)) == (0, "")
    assert (there / "large").stat().st_size == 5_000_000
    # Nor where nobody looks on.
    assert cli(here / "large", cli.at(1, there)) == ("", "")
