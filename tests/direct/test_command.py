"""What the guest's shell is given, read by real shells."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmconnect.direct.command
from vmconnect.direct.command import MARK, Command, Preface, script
from vmconnect.errors import GuestError, UnsupportedError

SCRIPTS = Path(vmconnect.direct.command.__file__).with_name("scripts")
SHELLS = [name for name in ("dash", "bash", "zsh", "busybox") if shutil.which(name)]
# What a program can be given: any bytes but null.
words = st.binary(max_size=40).map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory in which ``sh`` is that shell."""
    directory = tmp_path_factory.mktemp(request.param)
    program = shutil.which(request.param)
    assert program is not None
    Path(directory, "sh").symlink_to(program)
    return str(directory)


def sent(command: Command, shell: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Have a shell do what a guest's does with a command; return its end, without the preface."""
    result = subprocess.run(
        [f"{shell}/sh", "-c", command.line.encode("utf-8", "surrogateescape")],
        input=command.header + stdin,
        env={"PATH": f"{shell}:{os.environ['PATH']}", "HOME": "/tmp", "CDPATH": "/usr"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    preface = command.preface()
    if preface.done:
        return result.returncode, result.stdout, result.stderr
    preface.feed(result.stderr)
    preface.end()
    return result.returncode, result.stdout, preface.rest


@settings(max_examples=40)
@given(
    argv=st.lists(words, max_size=4),
    env=st.dictionaries(
        st.from_regex(r"X[A-Za-z0-9_]{0,5}", fullmatch=True), words, min_size=1, max_size=4
    ),
    stdin=st.binary(max_size=100),
)
def test_any_words_and_values_arrive_as_they_are(
    request: pytest.FixtureRequest, argv: list[str], env: dict[str, str], stdin: bytes
) -> None:
    for name in SHELLS:
        directory = Path("/tmp", f"vmconnect-sh-{os.getpid()}-{name}")
        if not directory.exists():
            directory.mkdir()
            (directory / "sh").symlink_to(str(shutil.which(name)))
            request.addfinalizer(functools.partial(shutil.rmtree, directory))
        command = Command.of(["sh", "-c", 'printf "%s\\0" "$@"; env -0; cat', "sh", *argv], env=env)
        code, out, err = sent(command, str(directory), stdin)
        assert (code, err) == (0, b"")
        given_words = "".join(f"{word}\0" for word in argv).encode("utf-8", "surrogateescape")
        assert out.startswith(given_words or b"\0")
        for key, value in env.items():
            assert f"{key}={value}\0".encode("utf-8", "surrogateescape") in out
        assert f"{MARK}={command.mark}\0".encode() in out
        assert out.endswith(stdin)


@pytest.mark.parametrize(
    ("argv", "code", "out"),
    [
        (["pwd"], 0, b"/usr\n"),
        (["sh", "-c", "exit 42"], 42, b""),
        (["cd", "/"], 0, b""),
        (["command", "-v", "cd"], 0, b"cd\n"),
        (["/no/such/command"], 127, b""),
        (["no-such-command"], 127, b""),
        (["/etc/passwd"], 126, b""),
    ],
)
def test_it_runs_in_a_directory(shell: str, argv: list[str], code: int, out: bytes) -> None:
    assert sent(Command.of(argv, cwd="/usr"), shell)[:2] == (code, out)


def test_a_relative_directory_is_no_other_s(shell: str) -> None:
    with pytest.raises(GuestError, match=r"the command cannot start: .*lib"):
        sent(Command.of(["pwd"], cwd="lib"), shell)


def test_a_directory_that_is_not_there(shell: str) -> None:
    with pytest.raises(GuestError, match=r"cannot start: .*nothere"):
        sent(Command.of(["touch", "/tmp/never"], cwd="/nothere"), shell)


def test_no_value_is_on_a_command_line(shell: str) -> None:
    command = Command.of(["sh", "-c", "cat /proc/$PPID/cmdline; echo $X"], env={"X": "secret"})
    assert "secret" not in command.line
    assert "secret" not in repr(command)
    assert b"secret" in command.header
    _code, out, _err = sent(command, shell)
    assert out.count(b"secret") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"A B": ""}},
        {"env": {"": ""}},
        {"env": {"É": ""}},
        {"env": {"A": "\0"}},
        {"cwd": "/\0"},
        {"user": "x; reboot"},
        {"user": "-x"},
        {"user": ""},
    ],
)
def test_what_no_shell_can_be_told(options: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError):
        Command.of(["true"], **options)  # type: ignore[arg-type]


def test_no_command() -> None:
    with pytest.raises(UnsupportedError, match="no command"):
        Command.of([])
    with pytest.raises(UnsupportedError, match="null character"):
        Command.of(["a\0b"])


def test_a_text_is_a_script() -> None:
    assert Command.of("a | b").argv == ("sh", "-c", "a | b")


def test_whom_we_are_needs_no_change() -> None:
    assert Command.of(["id"], user="ann", login_user="ann").header == b""
    assert Command.of(["id"], user="ann", login_user="bob").user == "ann"


# The preface.


def fed(command: Command, chunks: list[bytes]) -> Preface:
    preface = command.preface()
    rest = b""
    for chunk in chunks:
        if preface.done:
            rest += chunk
        else:
            preface.feed(chunk)
    preface.end()
    preface.rest += rest
    return preface


COMMAND = Command.of(["true"], cwd="/", mark="run.0123456789abcdef.")


@given(
    before=st.binary(max_size=50),
    after=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 130), max_size=5),
)
def test_a_preface_is_cut_out_wherever_the_bytes_are_cut(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    data = before + COMMAND.mark.encode() + b"ok\n" + after
    places = [0, *sorted(cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    assert fed(COMMAND, chunks).rest == before + after


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_anything_else_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(GuestError):
        fed(COMMAND, chunks)


def test_a_shell_that_talks_for_ever_is_not_listened_to() -> None:
    preface = COMMAND.preface()
    with pytest.raises(GuestError, match="too much to say"):
        for _ in range(100):
            preface.feed(b"x" * 1000)


def test_the_reason_is_the_last_line_and_no_more_than_a_line() -> None:
    command = Command.of(["id"], user="ann")
    with pytest.raises(GuestError, match="cannot run as ann: sudo: a password is required"):
        fed(command, [b"lecture\n\nsudo: a password is required\n"])
    with pytest.raises(GuestError) as caught:
        fed(command, [b"x" * 5000])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_scripts_read_the_same_without_their_comments(name: str) -> None:
    for shell in SHELLS:
        words = ["busybox", "sh"] if shell == "busybox" else [shell]
        subprocess.run([*words, "-nc", script(name)], check=True, timeout=60)


# Stand-ins for sudo, which is not installed here with rules for anybody: one lets us, one does not.
SUDO = """#!/bin/sh
[ "$1 $2 $3 $4" = "-n -u daemon --" ] || exit 9
shift 4
exec env -i PATH="$PATH" "$@"
"""
NO_SUDO = "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("name", SHELLS)
def test_who_is_not_root_goes_by_sudo(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="vmc-") as room:
        Path(room).chmod(0o755)
        shell = Path(room, "sh")
        shell.symlink_to(str(shutil.which(name)))
        sudo = Path(room, "sudo")

        def run(text: str) -> tuple[bytes, GuestError | None]:
            sudo.write_text(text)
            sudo.chmod(0o755)
            command = Command.of("echo $USER,$HOME,$A; cat", env={"A": "a\nb"}, user="daemon")
            result = subprocess.run(
                [str(shell), "-c", command.line],
                input=command.header + b"in",
                env={"PATH": f"{room}:/usr/bin:/bin", "HOME": "/"},
                cwd="/",
                user=65534,
                capture_output=True,
                timeout=60,
                check=False,
            )
            try:
                preface = command.preface()
                preface.feed(result.stderr)
                preface.end()
            except GuestError as error:
                return result.stdout, error
            return result.stdout, None

        assert run(SUDO) == (b"daemon,/usr/sbin,a b\nin", None)
        out, error = run(NO_SUDO)
        assert out == b""
        assert "cannot run as daemon: sudo: a password is required" in str(error)
