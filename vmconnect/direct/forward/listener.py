"""Sockets of this host that a forward listens on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from vmconnect.direct.forward.spec import ANYWHERE, LOOPBACK
from vmconnect.errors import ResourceError
from vmconnect.streams import Tcp, Unix

__all__ = ["Listener"]

_BACKLOG = 128
# sockaddr_un.sun_path holds 108 bytes with the terminating zero (unix(7)).
_SUN_PATH_BYTES = 107
_MODE = 0o600
# A free port of one family may be taken in the other; then another is asked for.
_TRIES = 8
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_NO_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Listener:
    """Listens at ``where``; ``bound`` is where that is, with the port that a 0 has become.

    A UNIX socket is the user's alone, and is removed at the end. Raises ResourceError.
    """

    def __init__(self, where: Tcp | Unix):
        self.sockets: list[socket.socket] = []
        self._path: tuple[str, int] | None = None
        try:
            if isinstance(where, Unix):
                self.bound: Tcp | Unix = where
                self._listen_at(where.path)
            else:
                self.bound = Tcp(where.host, self._listen_on(where))
        except OSError as error:
            self.close()
            raise ResourceError(
                f"cannot listen on {where}: {error.strerror or error}", hint=_hint(where, error)
            ) from error
        except UnicodeError as error:  # a name that no resolver takes
            self.close()
            raise ResourceError(f"cannot listen on {where}: {error}") from error

    def refuse(self) -> None:
        """Take nobody any more; the sockets are still there, for whoever waits for them."""
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._remove()

    def close(self) -> None:
        """Listen no more."""
        for each in self.sockets:
            each.close()
        self.sockets = []
        self._remove()

    def _remove(self) -> None:
        if self._path is not None:
            path, inode = self._path
            self._path = None
            with contextlib.suppress(OSError):  # Somebody was faster, or has put another there.
                if Path(path).lstat().st_ino == inode:
                    Path(path).unlink()

    def _listen_on(self, where: Tcp) -> int:
        for left in reversed(range(_TRIES)):
            try:
                return self._bind_all(where)
            except OSError as error:
                self.close()
                if where.port or error.errno != errno.EADDRINUSE or not left:
                    raise
        raise AssertionError

    def _bind_all(self, where: Tcp) -> int:
        """Listen at every address that is meant, on one port."""
        port = where.port
        for family, address in self._addresses(where.host):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError:
                if self.sockets or family is not socket.AF_INET6:
                    raise
                continue
            self.sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address, port))
            except OSError as error:
                # A host without IPv6 has its loopback address in IPv4 alone.
                if error.errno in _NO_FAMILY and family is socket.AF_INET6 and self.sockets[1:]:
                    self.sockets.pop().close()
                    continue
                raise
            sock.listen(_BACKLOG)
            port = sock.getsockname()[1]
        return port

    @staticmethod
    def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
        if host == LOOPBACK:
            return list(zip(_FAMILIES, ("127.0.0.1", "::1"), strict=True))
        if host == ANYWHERE:
            return list(zip(_FAMILIES, ("0.0.0.0", "::"), strict=True))  # noqa: S104 (asked for)
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [(family, str(address[0])) for family, _, _, _, address in found[:1]]

    def _listen_at(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sockets.append(sock)
        os.fchmod(sock.fileno(), _MODE)  # Linux gives the file what the socket has.
        if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
            sock.bind(path)
        else:
            directory, name = os.path.split(path)
            handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.bind(f"/proc/self/fd/{handle}/{name}")
            finally:
                os.close(handle)
        self._path = (path, Path(path).lstat().st_ino)
        sock.listen(_BACKLOG)


def _hint(where: Tcp | Unix, error: OSError) -> str | None:
    if error.errno == errno.EADDRINUSE and isinstance(where, Unix):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(where.path).lstat().st_mode):
                return "remove it, if nobody listens there any more"
        return "there is a file of that name"
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; port 0 takes a free one"
    if error.errno == errno.EACCES and isinstance(where, Tcp) and where.port < 1024:
        return "ports below 1024 are the superuser's"
    return None
