"""Completion in real shells: a key is pressed in bash and zsh, fish is asked by its own command."""

import contextlib
import os
import pty
import re
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisor.libvirtd import session_daemon
from tests.hypervisor.rig import qcow2, qemu, soon
from vmconnect.cli import main
from vmconnect.cli.completers import words_before

BIN = Path(sys.executable).parent
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place of machines, which is where the shells begin, too."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        monkeypatch.setenv("VMCONNECT_HYPERVISORS", name)
        monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
        monkeypatch.chdir(name)
        yield Path(name)


class Terminal:
    """An interactive shell, and what stands on its terminal."""

    def __init__(self, shell: str):
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "dumb", "PS1": "READY>", "HISTFILE": ""}
        self._process = subprocess.Popen(
            SHELLS[shell], stdin=theirs, stdout=theirs, stderr=theirs, env=env,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._terminal = ours
        self._shell = shell

    def prepare(self) -> None:
        """Let the shell complete, as its manual and ours say."""
        if self._shell == "zsh":
            # The line editor would be clever where a terminal can do little.
            self.run("unsetopt zle_bracketed_paste prompt_cr; PROMPT='READY>'")
            self.run("autoload -Uz compinit && compinit -u -D")
        self.run(f'eval "$(vmconnect completion {self._shell})"')

    def run(self, line: str) -> None:
        """Run a command and wait for its end."""
        self.send(f"{line}; echo DO''NE\n")
        self.until(r"DONE\r?\n")

    def send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, pattern: str) -> str:
        """Read until what has come matches; return it, without what moves a cursor."""
        deadline = soon()
        seen = ""
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal, selectors.EVENT_READ)
            while not re.search(pattern, seen):
                deadline.check(f"waiting for {pattern!r}, after {seen!r}")
                if selector.select(1):
                    data = os.read(self._terminal, 1 << 16).decode(errors="replace")
                    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07", "", seen + data)
        return seen

    def completes(self, typed: str, pattern: str, *, keys: int = 2) -> None:
        """Type, press Tab, and wait for what must then be there; clear the line."""
        self.send(typed + "\t" * keys)
        try:
            self.until(pattern)
        finally:
            self.send("\x15\n")
        self.run("true")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@contextlib.contextmanager
def terminal(shell: str) -> Iterator[Terminal]:
    opened = Terminal(shell)
    try:
        opened.prepare()
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(directory: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "disc.iso").touch()
    (directory / "console.vv").touch()
    (directory / "vmconnect").mkdir()
    (directory / "vmconnect" / "groups.toml").write_text('site = ["web01"]\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))
    machines = (qemu(directory, name) for name in ("web01", "db-a", "db-b"))
    with contextlib.ExitStack() as stack:
        for machine in machines:
            stack.enter_context(machine)
        with terminal(shell) as screen:
            screen.completes("vmconnect scr", r"vmconnect screenshot ")
            screen.completes("vmconnect exec we", r"vmconnect exec web01 ")
            # The first two make it db-, the next shows what there is.
            screen.completes("vmconnect exec d", r"(?s)exec db-.*(db-a.*db-b|db-b.*db-a)", keys=3)
            screen.completes("vmconnect exec -m we", r"exec -m web01 ")
            screen.completes("vmconnect exec --all --thr", r"exec --all --throttle ")
            screen.completes("vmconnect run disc.iso we", r"run disc.iso web01 ")
            screen.completes("vmconnect run dis", r"run disc\.iso ")
            screen.completes(
                "vmconnect run disc.iso @si", r"run disc\.iso @(si\x08\x08\x08@)?site "
            )
            screen.completes("vmconnect power web01 shut", r"power web01 shutdown ")
            screen.completes("vmconnect exec --accept", r"exec --accept-new-host-key ")
            screen.completes("vmconnect checkpoint app", r"checkpoint apply ")
            screen.completes("vmconnect checkpoint apply we", r"checkpoint apply web01 ")
            path = f"qemu:{directory}/we"
            screen.completes(f"vmconnect doctor {path}", rf"doctor {re.escape(path)}b01\.qmp ")
            screen.completes("vmconnect console libvirt:///sy", r"libvirt:///system/")
            screen.completes("vmconnect console con", r"console console\.vv ")
            screen.completes("vmconnect media web01 insert dis", r"insert disc\.iso ")


def test_fish_completes(directory: Path) -> None:
    def completions(line: str) -> dict[str, str]:
        script = f"vmconnect completion fish | source; complete -C '{line}'"
        told = subprocess.run(
            ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True
        )
        assert told.stderr == ""
        pairs = (each.partition("\t") for each in told.stdout.splitlines())
        return {word.strip(): what for word, _, what in pairs}

    with qemu(directory, "web01"), qemu(directory, "db-a"):
        assert completions("vmconnect exec we") == {"web01": "paused, qemu"}
        assert completions("vmconnect exec ") == {
            "web01": "paused, qemu",
            "db-a": "paused, qemu",
        }
        assert completions("vmconnect scr") == {
            "screenshot": "write a machine's screen to a PNG file"
        }
        assert "--since" in completions("vmconnect journal --")
        assert completions(f"vmconnect exec qemu:{directory}/w") == {
            f"qemu:{directory}/web01.qmp": "socket"
        }


def ask(line: str) -> list[str]:
    """Ask as bash does, without it, and return its choices."""
    with tempfile.TemporaryFile() as output:
        result = subprocess.run(
            ["bash", "-c", f"exec 8>&{output.fileno()}; exec vmconnect"],
            env={
                **os.environ,
                "_ARGCOMPLETE": "1",
                "_ARGCOMPLETE_SHELL": "bash",
                "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
                "COMP_LINE": line,
                "COMP_POINT": str(len(line.encode())),
            },
            pass_fds=[output.fileno()],
            capture_output=True,
            check=False,
        )
        assert result.stdout == b""
        output.seek(0)
        return sorted(filter(None, output.read().decode().split("\013")))


def test_what_is_the_guest_s_is_not_completed(directory: Path) -> None:
    assert ask("vmconnect exec web01 -- uname -") == []
    assert ask("vmconnect exec web01 uname -") == []
    assert "--wait" in ask("vmconnect exec web01 --")
    assert ask("vmconnect exec -l ro") == []


def test_names_that_are_no_targets_are_not_offered(directory: Path) -> None:
    with (
        qemu(directory, "a", "-name", "we b$(x)"),
        qemu(directory, "b", "-name", "we/b"),
        qemu(directory, "c", "-name", "--wait"),
        qemu(directory, "d", "-name", "we\x1b[31m"),
    ):
        assert ask("vmconnect exec we") == ["we\\ b\\$\\(x\\)"]
        assert "--wait" not in ask("vmconnect console ")


def test_what_does_not_answer_is_not_waited_for(directory: Path) -> None:
    with qemu(directory, "web01"), socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "web02.qmp"))
        silent.listen()
        assert ask("vmconnect exec we") == ["web01", "web02"]  # By its socket's name.
    assert ask("vmconnect exec we") == []


def test_places_that_cannot_be_looked_at(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", f"{directory}/none nonsense")
    assert ask("vmconnect exec we") == []
    assert ask("vmconnect exec qemu:/no/such/") == []
    assert ask("vmconnect exec libvirt:///system/x") == []
    assert ask("vmconnect checkpoint apply web01 c") == []


def test_checkpoints_are_completed(directory: Path) -> None:
    disk = qcow2(directory / "a.qcow2")
    with qemu(directory, "m", "-drive", f"if=virtio,format=qcow2,file={disk}", stopped=False):
        assert main(["checkpoint", "create", "m", "clean"]) == 0
        assert main(["checkpoint", "create", "m", "dirty"]) == 0
        assert ask("vmconnect checkpoint apply m c") == ["clean"]


def test_the_ends_of_copies_are_files_and_machines(directory: Path) -> None:
    (directory / "website").touch()
    with qemu(directory, "web01"):
        for line in ("vmconnect cp we", "vmconnect cp website we"):
            assert {each.strip() for each in ask(line)} >= {"web01:", "website"}


def test_domains_are_completed_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is one of the test's own, at the place of a user's."""
    import libvirt

    from tests.hypervisor.test_libvirt import DOMAIN
    from vmconnect.cli import completers

    with session_daemon() as (address, room):
        connection = libvirt.open(address.uri)
        try:
            connection.defineXML(DOMAIN.format(name="web01", room=room))
        finally:
            connection.close()
        monkeypatch.setattr("vmconnect.hypervisor.LibvirtAddress.read", lambda _text: (address, ""))
        found = completers._complete_target("libvirt:///session/we")
        assert found == {"libvirt:///session/web01": "off, libvirt"}
        assert completers._complete_target("qemu:///session/x") == {}


def test_beginnings_are_offered_once_something_is_typed(directory: Path) -> None:
    assert ask("vmconnect exec ") == []
    assert ask("vmconnect exec vso") == ["vsock-mux/", "vsock/"]
    assert ask("vmconnect exec libvirt:///") == ["libvirt:///session/", "libvirt:///system/"]


@pytest.mark.parametrize(
    ("line", "point", "words"),
    [
        ("vmconnect exec web01 un", None, ["exec", "web01"]),
        ("vmconnect exec web01 ", None, ["exec", "web01"]),
        ("vmconnect exec web01", 14, []),
        ("vmconnect exec web01", 15, ["exec"]),
        ("X=1 /opt/bin/vmconnect --version list ", None, ["list"]),
        ("vmconnect", None, []),
        ("", None, []),
    ],
)
def test_the_words_before_the_cursor(
    monkeypatch: pytest.MonkeyPatch, line: str, point: int | None, words: list[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", "" if point is None else str(point))
    assert words_before(["exec", "list"]) == words


def test_a_start_of_the_command_costs_nothing_for_it() -> None:
    script = "import sys; from vmconnect.cli import main; main(['list', '--names']); "
    script += "sys.exit('argcomplete' in sys.modules or 'vmconnect.cli.completers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_list_names(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with qemu(directory, "web01"), qemu(directory, "a", "-name", "x\x1by"):
        assert main(["list", "--names"]) == 0
    assert capsys.readouterr().out == "web01\nx?y\n"
