"""Passwords are nowhere to be seen: real logins that fail, and that do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.xtigervnc import PASSWORD as VNC_PASSWORD
from tests.cli.xtigervnc import Servers
from tests.secrecy import argv_seen, assert_hidden, assert_hidden_in, everything_logged, reachable
from tests.vnc.authority import Authority
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.errors import AuthenticationError, ResourceError, VmconnectError
from vmconnect.secret import Secret, forget_frames
from vmconnect.session import Session, TrustStore, connect
from vmconnect.session.secrets import secret_from_environment, secret_from_file
from vmconnect.vnc.policy import Policy

WAIT = 60.0
WRONG = "wr0ng-pw"  # As long as VNC's own login takes.
RIGHT = "tell-n0body"
HASH = (  # openssl passwd -6
    "$6$vmconnecttests$Mg.o9hSfdjhCfuPIy82em214kIYglWWkVycGs6ZwND"
    "L1Pmk8cHo8D8xLWMdpxfyG6Ce2M3lw0DX0L0t1yuuiq0"
)


# The tools see what they are to see.


def raised_elsewhere() -> BaseException:
    """Return what a function raises that is no test's, and is given the secret."""
    space: dict[str, Callable[[str], None]] = {}
    code = "def f(p):\n q = p.encode()\n raise KeyError(1)"
    exec(compile(code, "/elsewhere/x.py", "exec"), space)  # noqa: S102
    with pytest.raises(KeyError) as caught:
        space["f"](WRONG)
    return caught.value


def test_the_tools_find_a_secret_that_is_there() -> None:
    with pytest.raises(AssertionError):
        assert_hidden_in(WRONG, raised_elsewhere())
    with pytest.raises(AssertionError):
        assert_hidden_in(WRONG, AuthenticationError(f"not {WRONG}"))
    with pytest.raises(AssertionError):
        assert_hidden(WRONG, "\n".join(map(repr, reachable([{"a": (WRONG,)}]))))


def test_a_secret_shows_nothing() -> None:
    secret = Secret(WRONG)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{[secret]}"):
        assert_hidden(WRONG, shown)
    assert_hidden(WRONG, "".join(map(repr, reachable(secret))))
    assert secret.reveal().encode() == WRONG.encode()
    assert_hidden(WRONG, repr(secret.reveal()))
    assert (secret == Secret(WRONG), secret == Secret("other"), secret == WRONG) == (
        True,
        False,
        False,
    )
    assert len({secret, Secret(WRONG)}) == 1
    import copy
    import pickle

    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be written down"):
            write(secret)


def test_forgotten_frames_have_no_variables() -> None:
    error = raised_elsewhere()
    forget_frames(error)
    assert_hidden_in(WRONG, error)


@pytest.mark.parametrize("data", [f"{WRONG}\udcff\n", f"\n{WRONG}", WRONG * 10_000])
def test_what_cannot_be_read_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(data.encode(errors="surrogateescape"))
    with pytest.raises(ResourceError) as unsafe:
        secret_from_file(path)
    assert "chmod" in str(unsafe.value)
    assert_hidden_in(WRONG, unsafe.value)
    path.chmod(0o600)
    with pytest.raises(ResourceError) as caught:
        secret_from_file(path)
    assert_hidden_in(WRONG, caught.value)
    if len(data) < 1000:
        monkeypatch.setenv("SOME_PASSWORD", data)
        with pytest.raises(ResourceError) as caught:
            secret_from_environment("SOME_PASSWORD")
        assert_hidden_in(WRONG, caught.value)


def test_a_keyring_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring

    from tests.session.file_keyring import FileKeyring
    from vmconnect.session.keyring import Keyring, KeyringEntry
    from vmconnect.session.purpose import Purpose

    monkeypatch.setattr(keyring.core, "_keyring_backend", FileKeyring())
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", str(tmp_path / "no" / "keyring"))
    entry = KeyringEntry(Purpose.GUEST, "some", "ann", "web01")
    with pytest.raises(ResourceError, match="the keyring") as caught:
        Keyring(tmp_path / "list").store(entry, Secret(WRONG))
    assert_hidden_in(WRONG, caught.value)


# The console.


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    if shutil.which("Xtigervnc") is None:
        pytest.skip("needs Xtigervnc (apt install tigervnc-standalone-server)")
    for variable in ("VNC_PASSWORD", "VNC_USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Servers(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("kind", ["VncAuth", "TLSVnc", "X509Vnc", "Plain", "X509Plain"])
def test_a_console_s_password(servers: Servers, tmp_path: Path, kind: str) -> None:
    servers.start(kind, Authority(tmp_path / "pki") if "X509" in kind else None)
    with connect(servers.target) as session, everything_logged() as logged:
        options = {"policy": Policy(private=True), "accept_host_key": lambda _key: True}
        with pytest.raises(VmconnectError) as caught:
            session.console(password=WRONG, user="ann", **options)  # type: ignore[arg-type]
        assert_hidden_in(WRONG, caught.value)
        if not kind.endswith("Plain"):  # PAM knows nobody here.
            console = session.console(password=VNC_PASSWORD, **options)  # type: ignore[arg-type]
            for each in reachable(session, console):
                assert_hidden(VNC_PASSWORD, repr(each), type(each))
    assert_hidden(WRONG, logged.getvalue())
    assert_hidden(VNC_PASSWORD, logged.getvalue())


def test_a_password_past_latin_1(servers: Servers) -> None:
    secret = "gehe\N{EURO SIGN}im"  # noqa: S105
    servers.start("VncAuth")
    with connect(servers.target) as session, pytest.raises(AuthenticationError) as caught:
        session.console(password=secret)
    assert "Latin-1" in str(caught.value)
    assert_hidden_in(secret, caught.value)


def test_a_password_that_a_monitor_refuses(tmp_path: Path) -> None:
    from tests.hypervisor.rig import qemu, soon
    from vmconnect.hypervisor import Qemu

    with qemu(tmp_path, "m", "-vnc", f"unix:{tmp_path}/m.vnc"):
        hypervisor = Qemu(tmp_path)
        (machine,) = hypervisor.machines(soon())
        with pytest.raises(VmconnectError) as caught:
            hypervisor.set_console_password(machine, Secret(WRONG), soon())
    assert "password=on" in str(caught.value)
    assert_hidden_in(WRONG, caught.value)


# The guest.


@pytest.fixture(scope="module")
def machine(demo_image: DemoImage) -> Iterator[DemoMachine]:
    """A machine whose guest takes guest's password."""
    script = f"""
        cd /etc/ssh
        sed -i -e /^AuthenticationMethods/d -e 's/^\\(Password[A-Z]\\w*\\).*/\\1 yes/' sshd_config
        sed -i 's|^guest:[^:]*:|guest:{HASH}:|' /etc/shadow
    """
    with DemoMachine.start("discreet", image=demo_image) as machine:
        with connect(machine.name) as session:
            assert session.guest(timeout=WAIT, wait=True).run(["sh", "-c", script]).ok
        yield machine


@pytest.mark.guest
def test_a_guest_s_password(machine: DemoMachine, tmp_path: Path) -> None:
    trust = TrustStore(tmp_path / "hosts")
    with (
        Session(connect(machine.name).machine, trust) as session,
        everything_logged() as logged,
    ):
        with pytest.raises(AuthenticationError) as caught:
            session.guest(user="guest", password=WRONG)
        assert_hidden_in(WRONG, caught.value)
        guest = session.guest(user="guest", password=RIGHT)
        assert guest.run(["id", "-un"]).text == "guest\n"
        for each in reachable(session, guest):
            assert_hidden(RIGHT, repr(each), type(each))
    assert "userauth" in logged.getvalue()  # paramiko did log.
    for secret in (WRONG, RIGHT):
        assert_hidden(secret, logged.getvalue())


@pytest.mark.guest
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_s_passphrase(machine: DemoMachine, tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    words = ["ssh-keygen", "-q", "-t", kind, "-N", RIGHT, "-f"]
    subprocess.run([*words, str(key)], check=True)
    with connect(machine.name) as session, everything_logged() as logged:
        for secret in (WRONG, RIGHT):
            with pytest.raises(AuthenticationError) as caught:
                session.guest(user="guest", identity_files=[key], passphrase=secret)
            assert ("does not open" in str(caught.value)) == (secret == WRONG)
            assert_hidden_in(secret, caught.value)
            assert_hidden(secret, logged.getvalue())


# The command line, with all that it has to say.

DEBUGGED = """
import logging, sys
import vmconnect.direct.ssh
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("paramiko").propagate = True
from vmconnect.cli import main
sys.exit(main())
"""


def debugged(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, list[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DEBUGGED, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VMCONNECT_DEBUG": "1", **(env or {})},
    )
    with argv_seen(process) as lines:
        out, err = process.communicate(timeout=WAIT)
    assert lines
    return process.returncode, out + err, lines


@pytest.mark.guest
@pytest.mark.parametrize("way", ["file", "environment"])
def test_exec(machine: DemoMachine, tmp_path: Path, way: str) -> None:
    path = tmp_path / "password"
    path.touch(0o600)
    for secret, expected in ((WRONG, 255), (RIGHT, 0)):
        path.write_text(secret)
        options = ["--password-file", str(path)]
        env: dict[str, str] = {}
        if way == "environment":
            options, env = [], {"VMCONNECT_GUEST_PASSWORD_DISCREET": secret}
        words = ["exec", "-v", "-l", "guest", *options, machine.name, "--", "id", "-un"]
        code, said, lines = debugged(*words, env={**env, "HOME": str(tmp_path)})
        if way == "file":
            assert (code, "DEBUG:paramiko" in said) == (expected, True)
        assert_hidden(secret, said)
        for line in lines:
            assert_hidden(secret, line.decode())


def test_screenshot(servers: Servers, tmp_path: Path) -> None:
    servers.start("VncAuth")
    path = tmp_path / "password"
    path.touch(0o600)
    for secret, expected in ((WRONG, 1), (VNC_PASSWORD, 0)):
        path.write_text(secret)
        words = ["screenshot", servers.target, "-o", str(tmp_path / "x.png")]
        for options, env in (
            (["--password-file", str(path)], {}),
            ([], {"VNC_PASSWORD": secret}),
        ):
            code, said, lines = debugged(*words, *options, env=env)
            assert code == expected, said
            assert_hidden(secret, said)
            for line in lines:
                assert_hidden(secret, line.decode())


def test_a_connection_file_s_password(tmp_path: Path) -> None:
    from vmconnect.session import parse_target, resolve

    path = tmp_path / "console.vv"
    path.write_text(f"[virt-viewer]\ntype=vnc\nhost=127.0.0.1\nport=1\npassword={WRONG}\n")
    found = resolve(parse_target(str(path)))
    assert found.console_password == Secret(WRONG)
    for each in reachable(found):
        assert_hidden(WRONG, repr(each))
    with Session(found) as session, pytest.raises(VmconnectError) as caught:
        session.console()
    assert_hidden_in(WRONG, caught.value)
