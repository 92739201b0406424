"""A Kerberos realm of the tests' own: its key server on loopback, and a ticket for one user."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PASSWORD, START_SECONDS, USER

__all__ = ["Realm", "realm"]

NAME = "VM.TEST"
_PROGRAMS = ("kdb5_util", "kadmin.local", "krb5kdc", "kinit")
# Not every user's PATH has where Debian puts the server's.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"

_CLIENT = """\
[libdefaults]
 default_realm = {name}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 {name} = {{
  kdc = 127.0.0.1:{port}
 }}
"""

_SERVER = """\
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {name} = {{
  database_name = {directory}/principal
  key_stash_file = {directory}/stash
  acl_file = {directory}/acl
 }}
[logging]
 kdc = FILE:{directory}/log
"""


class Realm:
    """The realm; the environment has what its programs and libraries need to know."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.ticket = directory / "ticket"

    def log_in(self) -> None:
        """Get the user's ticket."""
        subprocess.run(
            ["kinit", USER], input=PASSWORD.encode(), stdout=subprocess.DEVNULL, check=True
        )

    def log_out(self) -> None:
        """Be nobody again."""
        self.ticket.unlink()


@contextlib.contextmanager
def realm(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Realm]:
    """Run a realm that knows the user, and VNC servers on this host."""
    if any(shutil.which(program, path=_PATH) is None for program in _PROGRAMS):
        pytest.skip("needs Kerberos (apt install krb5-kdc krb5-admin-server krb5-user)")
    directory.mkdir()
    made = Realm(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in (("krb5.conf", _CLIENT), ("kdc.conf", _SERVER)):
        filled = text.format(name=NAME, port=port, directory=directory)
        (directory / name).write_text(filled)
    monkeypatch.setenv("PATH", _PATH)
    monkeypatch.setenv("KRB5_CONFIG", str(directory / "krb5.conf"))
    monkeypatch.setenv("KRB5_KDC_PROFILE", str(directory / "kdc.conf"))
    monkeypatch.setenv("KRB5_KTNAME", f"FILE:{directory}/keytab")
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{made.ticket}")
    service = f"vnc/{socket.gethostname()}"
    _run("kdb5_util", "create", "-s", "-P", "master")
    _run("kadmin.local", "addprinc", "-pw", PASSWORD, USER)
    _run("kadmin.local", "addprinc", "-randkey", service)
    _run("kadmin.local", "ktadd", "-k", str(directory / "keytab"), service)
    with subprocess.Popen(["krb5kdc", "-n"], stdout=subprocess.DEVNULL) as server:
        try:
            _await(port)
            yield made
        finally:
            server.kill()


def _run(*words: str) -> None:
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def _await(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert time.monotonic() < end
        time.sleep(0.02)
