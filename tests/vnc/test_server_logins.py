"""Every login that a server here has, against that server.

RA2 is in test_ra2.py, Apple's and Microsoft's logins in test_logins.py, against servers that the
tests play: no server of Debian 12 has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vmconnect.deadline import Deadline
from vmconnect.errors import AuthenticationError, ConnectionLostError, RfbError, TrustError
from vmconnect.streams import Stream, Tcp, Unix, dial
from vmconnect.vnc import Console, handshake
from vmconnect.vnc.png import encode_png
from vmconnect.vnc.policy import Policy, ServerKey
from vmconnect.vnc.security import NONE, Login
from vmconnect.vnc.security.tight import TIGHT
from vmconnect.vnc.security.vncauth import VNC_AUTH

from .authority import Authority
from .conftest import PASSWORD, USER, Qemu, RealServer
from .support import LOGINS
from .tightvnc import tightvnc
from .wayvnc import desktop, wayvnc

PATIENCE = 30.0
ATTEMPTS = 4
NAME = "console.example"
# What VncAuth makes of it.
SHORT = PASSWORD[:8]


class Keys:
    """The server's keys that a console has shown us, and that we have let pass."""

    def __init__(self) -> None:
        self.seen: list[ServerKey] = []

    def __call__(self, key: ServerKey) -> None:
        self.seen.append(key)


@dataclasses.dataclass
class Door:
    """Where a server listens, and what is said to it."""

    opener: Callable[[Deadline], Stream]
    unsteady: bool = False

    @classmethod
    def unix(cls, path: Path) -> Door:
        return cls(lambda deadline: dial(Unix(str(path)), deadline))

    def open(
        self, policy: Policy | None = None, user: str | None = None, password: str | None = None
    ) -> Console:
        for attempt in range(ATTEMPTS):
            try:
                return Console.open(
                    self.opener, "real", user=user, password=password, policy=policy,
                    timeout=PATIENCE,
                )  # fmt: skip
            except ConnectionLostError:
                # x11vnc's helper for TLS resets a connection now and then.
                if not self.unsteady or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError


def look(console: Console, login: str, *, encrypted: bool) -> None:
    """Close a console that has come as far as a picture."""
    with console:
        assert (console.login, console.encrypted) == (login, encrypted)
        assert console.pixels().size


def check(console: Console, login: str, *, encrypted: bool) -> None:
    """Close a console that has come as far as a picture and a key press."""
    with console:
        assert (console.login, console.encrypted) == (login, encrypted)
        assert console.pixels().size
        console.type("x")
        console.refresh(PATIENCE)


def test_the_document_tells_of_these() -> None:
    assert [login for login, _, _ in QEMU_KINDS] == list(LOGINS["qemu"])
    assert [login for login, _ in XTIGERVNC_KINDS] == list(LOGINS["xtigervnc"])
    assert {"TLS", *(login for login, _, _ in X11VNC_KINDS)} == set(LOGINS["x11vnc"])
    made = {login for login, _ in TIGHTVNC_KINDS} | {kind.name for _, kind in TIGHTVNC_KINDS}
    assert made == set(LOGINS["tightvnc"])


# QEMU.


# Without a certificate QEMU wants a SASL mechanism that encrypts by itself: DIGEST-MD5 here.
QEMU_KINDS = [
    ("None", "", False),
    ("VncAuth", ",password=on", False),
    ("TLSNone", ",tls-creds=tls0", True),
    ("TLSVnc", ",tls-creds=tls0,password=on", True),
    ("X509None", ",tls-creds=x5090", True),
    ("X509Vnc", ",tls-creds=x5090,password=on", True),
    ("SASL", ",sasl=on", True),
    ("TLSSASL", ",tls-creds=tls0,sasl=on", True),
    ("X509SASL", ",tls-creds=x5090,sasl=on", True),
]


@pytest.mark.usefixtures("sasl")
@pytest.mark.parametrize(("login", "options", "encrypted"), QEMU_KINDS)
def test_qemu(
    qemu: Callable[..., Qemu], authority: Authority, login: str, options: str, encrypted: bool
) -> None:
    server = start_qemu(qemu, authority, options)
    door, keys = qemu_door(server, options), Keys()
    policy = Policy(check_key=keys)
    asks = not login.endswith("None")
    user, password = (USER, PASSWORD) if "SASL" in login else (None, SHORT if asks else None)
    check(door.open(policy, user, password), login, encrypted=encrypted)
    assert [key.kind for key in keys.seen] == ["x509"] * login.startswith("X509")
    if asks:
        with pytest.raises(AuthenticationError, match=f"{login}|SCRAM|DIGEST"):
            door.open(policy, user, "wrong")


def start_qemu(qemu: Callable[..., Qemu], authority: Authority, options: str) -> Qemu:
    words: list[str] = []
    if "tls0" in options:
        words = ["-object", "tls-creds-anon,id=tls0,endpoint=server"]
    if "x5090" in options:
        authority.issue("server", NAME)
        verify = "yes" if "verified" in options else "no"
        place = f"dir={authority.directory},endpoint=server,verify-peer={verify}"
        words = ["-object", f"tls-creds-x509,id=x5090,{place}"]
    if "sasl" in options:
        # It takes no SASL on a UNIX socket (ui/vnc-auth-sasl.c asks for the internet address).
        words += ["-vnc", f"127.0.0.1:0,to=99{options}"]
        options = ""
    server = qemu("-vga", "std", *words, vnc=options.replace(",verified", ""))
    if "password" in options:
        server.qmp("set_password", protocol="vnc", password=SHORT)
    return server


def qemu_door(server: Qemu, options: str) -> Door:
    if "sasl" not in options:
        return Door.unix(server.address)
    (port,) = (
        int(each["service"])
        for display in server.qmp("query-vnc-servers")
        for each in display.get("server", ())
        if each["family"] == "ipv4"
    )
    return Door(lambda deadline: dial(Tcp("127.0.0.1", port), deadline))


def test_certificates_of_a_ca(qemu: Callable[..., Qemu], authority: Authority) -> None:
    """The CA that we name decides, and the name; a pinned certificate is not asked about then."""
    server = start_qemu(qemu, authority, ",tls-creds=x5090")
    door = Door.unix(server.address)
    good = Policy(authority=authority.certificate, server_name=NAME)
    check(door.open(good), "X509None", encrypted=True)
    check(door.open(dataclasses.replace(good, server_name=None)), "X509None", encrypted=True)
    with pytest.raises(TrustError, match="certificate is not good: Hostname mismatch"):
        door.open(dataclasses.replace(good, server_name="other.example"))
    stranger = Authority(authority.directory / "other").certificate
    with pytest.raises(TrustError, match="certificate is not good"):
        door.open(dataclasses.replace(good, authority=stranger))
    with pytest.raises(TrustError, match="nobody can tell"):
        door.open(Policy())


def test_a_refused_certificate_ends_it(qemu: Callable[..., Qemu], authority: Authority) -> None:
    """Nothing but the refusal happens: no other login is tried, no password asked for."""
    server = start_qemu(qemu, authority, ",tls-creds=x5090,password=on")
    refusal = TrustError("not that one")

    def refuse(key: ServerKey) -> None:
        raise refusal

    def ask() -> str:
        raise AssertionError("asked")

    with pytest.raises(TrustError, match="not that one"):
        Console.open(
            Door.unix(server.address).opener,
            "real",
            password=ask,
            policy=Policy(check_key=refuse),
            timeout=PATIENCE,
        )


def test_our_own_certificate(qemu: Callable[..., Qemu], authority: Authority) -> None:
    server = start_qemu(qemu, authority, ",tls-creds=x5090,verified")
    door = Door.unix(server.address)
    certificate, key = authority.issue("client", "somebody")
    ours = Policy(authority=authority.certificate, certificate=certificate, private_key=key)
    check(door.open(ours), "X509None", encrypted=True)
    # TLS 1.3 refuses after the handshake, when we speak already.
    with pytest.raises((RfbError, ConnectionError)):
        door.open(dataclasses.replace(ours, certificate=None, private_key=None))


def test_no_way_down(qemu: Callable[..., Qemu], authority: Authority) -> None:
    """A server that has proved itself before is not let in without, whatever it offers."""
    server = start_qemu(qemu, authority, ",tls-creds=tls0")
    with pytest.raises(TrustError, match="do not prove who it is: TLSNone"):
        Door.unix(server.address).open(Policy(verified=True))


# Xtigervnc.


@pytest.fixture
def pam(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PAM know one user, in the processes that are started from here on."""
    wrapper = next(Path("/usr/lib").glob("*/libpam_wrapper.so"), None)
    matrix = next(Path("/usr/lib").glob("*/pam_wrapper/pam_matrix.so"), None)
    if wrapper is None or matrix is None:
        pytest.skip("needs pam_wrapper (apt install libpam-wrapper)")
    services = directory / "pam"
    services.mkdir()
    users = directory / "users"
    users.write_text(f"{USER}:{PASSWORD}:vnc\n")
    line = f"{{}} required {matrix} passdb={users}\n"
    (services / "vnc").write_text(line.format("auth") + line.format("account"))
    monkeypatch.setenv("LD_PRELOAD", str(wrapper))
    monkeypatch.setenv("PAM_WRAPPER", "1")
    monkeypatch.setenv("PAM_WRAPPER_SERVICE_DIR", str(services))


def password_file(directory: Path) -> Path:
    """Make what the Xvncs read for VncAuth."""
    passwords = directory / "passwords"
    passwords.write_bytes(
        subprocess.run(
            ["tigervncpasswd", "-f"], input=SHORT.encode(), stdout=subprocess.PIPE, check=True
        ).stdout
    )
    return passwords


XTIGERVNC_KINDS = [
    ("None", False),
    ("VncAuth", False),
    ("Plain", False),
    ("TLSNone", True),
    ("TLSVnc", True),
    ("TLSPlain", True),
    ("X509None", True),
    ("X509Vnc", True),
    ("X509Plain", True),
]


@pytest.mark.usefixtures("pam")
@pytest.mark.parametrize(("login", "encrypted"), XTIGERVNC_KINDS)
def test_xtigervnc(
    xtigervnc: Callable[..., RealServer],
    directory: Path,
    authority: Authority,
    login: str,
    encrypted: bool,
) -> None:
    certificate, key = authority.issue("server", NAME)
    passwords = password_file(directory)
    server = xtigervnc(
        *("-SecurityTypes", login, "-PasswordFile", str(passwords), "-PlainUsers", USER),
        *("-X509Cert", str(certificate), "-X509Key", str(key)),
    )
    door = Door.unix(server.address)
    keys = Keys()
    policy = Policy(private=login == "Plain", check_key=keys)
    asks = not login.endswith("None")
    user, password = (USER, PASSWORD) if "Plain" in login else (None, SHORT if asks else None)
    check(door.open(policy, user, password), login, encrypted=encrypted)
    assert [key.kind for key in keys.seen] == ["x509"] * login.startswith("X509")
    if asks:
        with pytest.raises(AuthenticationError, match=login):
            door.open(policy, user, "wrong")
    if login == "Plain":
        with pytest.raises(TrustError, match="show the password to who listens: Plain"):
            door.open(Policy(), user, password)


def test_xtigervnc_has_no_more() -> None:
    """What it says of itself is what is tried above."""
    said = subprocess.run(["Xtigervnc", "-help"], capture_output=True, text=True, check=False)
    words = re.search(r"SecurityTypes\s+- .*?\((.*?)\)", said.stderr + said.stdout, re.DOTALL)
    assert words is not None
    assert set(re.split(r",\s*", words[1])) == set(LOGINS["xtigervnc"])


# wayvnc.


def test_wayvnc(directory: Path, authority: Authority) -> None:
    certificate, key = authority.issue("server", NAME)
    picture = directory / "picture.png"
    picture.write_bytes(encode_png(np.zeros((48, 64, 3), np.uint8)))
    for path in (authority.directory, certificate, key):
        path.chmod(0o755)
    with desktop(directory, picture, 64, 48) as display:
        with wayvnc(directory, display) as address:
            look(Door.unix(address).open(), "None", encrypted=False)
        settings = {
            "enable_auth": "true",
            "username": USER,
            "password": PASSWORD,
            "certificate_file": certificate,
            "private_key_file": key,
        }
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        with wayvnc(directory, display, lines) as address:
            door = Door.unix(address)
            policy = Policy(authority=authority.certificate, server_name=NAME)
            look(door.open(policy, USER, PASSWORD), "X509Plain", encrypted=True)
            # Its refusal says that all is well, and then nothing that makes sense.
            with pytest.raises(RfbError):
                door.open(policy, USER, "wrong")


# TightVNC.


TIGHTVNC_KINDS = [("None", NONE), ("VncAuth", VNC_AUTH), ("None", TIGHT), ("VncAuth", TIGHT)]


@pytest.mark.parametrize(("login", "kind"), TIGHTVNC_KINDS)
def test_tightvnc(
    directory: Path, monkeypatch: pytest.MonkeyPatch, login: str, kind: Login
) -> None:
    # It offers its own type beside the old one, which would be taken.
    monkeypatch.setattr(handshake, "LOGINS", (kind,))
    options = ["-rfbauth", str(password_file(directory))] if login == "VncAuth" else []
    with tightvnc(*options) as server:
        door = Door(lambda deadline: dial(Tcp("127.0.0.1", server.port), deadline))
        password = SHORT if options else None
        console = door.open(None, None, password)
        assert console._engine.capabilities_follow is (kind is TIGHT)
        check(console, login, encrypted=False)
        if password:
            with pytest.raises(AuthenticationError, match=login):
                door.open(None, None, "wrong")


# x11vnc.


@pytest.fixture
def x11vnc(
    xtigervnc: Callable[..., RealServer], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Door]]:
    """Start x11vncs with the given options."""
    if shutil.which("x11vnc") is None:
        pytest.skip("needs x11vnc (apt install x11vnc)")
    # Distributions' OpenSSL refuses what it wants to offer: anonymous TLS.
    settings = directory / "openssl.cnf"
    settings.write_text(OPENSSL)
    monkeypatch.setenv("OPENSSL_CONF", str(settings))
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> Door:
            screen = xtigervnc("-SecurityTypes", "None")
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            words = [
                "x11vnc",
                "-display",
                f":{screen.display}",
                "-rfbport",
                str(port),
                "-localhost",
            ]
            # Shared memory of System V outlives its processes: enough of it, and nobody gets more.
            words += ["-forever", "-shared", "-noipv6", "-quiet", "-nocursor", "-norc", "-noshm"]
            words += [*options]
            process = stack.enter_context(
                subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.kill)
            end = time.monotonic() + PATIENCE
            while True:
                assert process.poll() is None
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                assert time.monotonic() < end
                time.sleep(0.05)
            return Door(lambda deadline: dial(Tcp("127.0.0.1", port), deadline), unsteady=True)

        yield start


OPENSSL = """\
openssl_conf = library
[library]
ssl_conf = ssl
[ssl]
system_default = default
[default]
CipherString = ALL:@SECLEVEL=0
"""

X11VNC_KINDS = [
    ("None", False, ["-nopw"]),
    ("VncAuth", False, ["-passwd", SHORT]),
    ("TLSNone", True, ["-nopw", "-ssl", "{pem}", "-vencrypt", "nox509:only"]),
    ("TLSVnc", True, ["-passwd", SHORT, "-ssl", "{pem}", "-vencrypt", "nox509:only"]),
    ("X509None", True, ["-nopw", "-ssl", "{pem}", "-vencrypt", "nodh:only"]),
    ("X509Vnc", True, ["-passwd", SHORT, "-ssl", "{pem}", "-vencrypt", "nodh:only"]),
]


@pytest.mark.parametrize(("login", "encrypted", "options"), X11VNC_KINDS)
def test_x11vnc(
    x11vnc: Callable[..., Door],
    authority: Authority,
    login: str,
    encrypted: bool,
    options: list[str],
) -> None:
    certificate, key = authority.issue("server", NAME, old=True)
    pem = authority.directory / "both.pem"
    pem.write_bytes(key.read_bytes() + certificate.read_bytes())
    door = x11vnc(*(option.format(pem=pem) for option in options))
    keys = Keys()
    password = None if login.endswith("None") else SHORT
    check(door.open(Policy(check_key=keys), None, password), login, encrypted=encrypted)
    assert [key.kind for key in keys.seen] == ["x509"] * login.startswith("X509")
    if password:
        with pytest.raises(AuthenticationError, match=login):
            door.open(Policy(check_key=keys), None, "wrong")


def test_x11vnc_anonymous_tls(x11vnc: Callable[..., Door], authority: Authority) -> None:
    """Security type 18, and a login within."""
    certificate, key = authority.issue("server", NAME, old=True)
    pem = authority.directory / "both.pem"
    pem.write_bytes(key.read_bytes() + certificate.read_bytes())
    door = x11vnc("-passwd", SHORT, "-ssl", str(pem), "-anontls", "only")
    check(door.open(None, None, SHORT), "VncAuth", encrypted=True)
