"""Calls of named sessions as bytes, read by real shells; and what guests say of sessions."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmconnect.direct.command import script
from vmconnect.direct.named_call import Call, NamedStatus, statuses
from vmconnect.errors import GuestError, UnsupportedError

SHELLS = [name for name in ("dash", "bash", "zsh") if shutil.which(name)]
texts = st.binary(max_size=200).map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


def reader() -> str:
    """Return the lines of `sessions.sh` that read a text."""
    lines = script("sessions.sh").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("while LC_ALL="))
    return "\n".join(lines[start : start + 3])


@settings(max_examples=50)
@given(text=texts, stdin=st.binary(max_size=200))
@example(text="\\", stdin=b"\\\n")
@example(text="a\n\n", stdin=b"\n")
@example(text="-n", stdin=b"")
def test_a_text_and_its_input_come_apart(text: str, stdin: bytes) -> None:
    call = Call.of("shell", text)
    for shell in SHELLS:
        read = _read(shell, call, stdin)
        assert read == (text.encode("utf-8", "surrogateescape") + b"\n", stdin)


def _read(shell: str, call: Call, stdin: bytes) -> tuple[bytes, bytes]:
    lines = reader().replace('>"$call/text"', ">&2")
    done = subprocess.run(
        [shell, "-c", f"end=$1\n{lines}\ncat", "-", call.end],
        input=b"".join(call.input(stdin)),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stderr, done.stdout


@given(texts, texts)
def test_what_is_set_first_is_set_as_it_is(value: str, text: str) -> None:
    call = Call.of("python", f"0 # {text!a}", env={"A": value})
    namespace: dict[str, object] = {}
    source = call.text.decode("ascii").replace("__import__('os').environ", "environ")
    environ: dict[str, str] = {}
    namespace["environ"] = environ
    exec(source, namespace)  # noqa: S102
    assert environ == {"A": value}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_directory_and_variables_of_a_shell(shell: str, tmp_path: Path) -> None:
    where = tmp_path / "it's\na dir"
    where.mkdir()
    call = Call.of("shell", ["printf", "%s", "a b"], env={"A": "x\n'y'"}, cwd=str(where))
    (tmp_path / "text").write_bytes(call.text + b'; printf "|%s|" "$A"; pwd')
    out = subprocess.run(
        [shell, "-c", f". {tmp_path}/text"], capture_output=True, check=True, timeout=60
    ).stdout
    assert out.decode() == f"a b|x\n'y'|{where}\n"


def test_an_input_is_passed_on_as_it_comes() -> None:
    call = Call.of("shell", "cat")
    assert [*call.input(iter([b"a", b"b"]))][-2:] == [b"a", b"b"]
    assert len([*call.input(None)]) == 1


def test_what_no_session_can_be_told() -> None:
    for kind, command, env in (
        ("python", ["x"], {}),
        ("shell", "a\0b", {}),
        ("shell", "true", {"A B": ""}),
        ("python", "1", {"A B": ""}),
    ):
        with pytest.raises(UnsupportedError):
            Call.of(kind, command, env=env)  # type: ignore[arg-type]


def test_a_line_is_a_session() -> None:
    assert statuses(b"build shell ready - 100\nx.y python ended 3 -\n") == [
        NamedStatus("build", "shell", "ready", None, 100),
        NamedStatus("x.y", "python", "ended", 3, None),
    ]


@given(st.binary(max_size=200))
@example(b"../x shell ready - 1")
@example(b"a shell ready " + b"9" * 5000 + b" 1")
def test_anything_is_sessions_or_refused(data: bytes) -> None:
    with contextlib.suppress(GuestError):
        for status in statuses(data):
            assert status.name.replace("-", "").replace("_", "").replace(".", "").isalnum()
