"""Listening UNIX sockets: private, never stolen from a live process, removed at the end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from vmconnect.errors import ResourceError

__all__ = ["MAX_PATH_BYTES", "Listener"]

# sockaddr_un.sun_path has 108 bytes with the terminating zero (unix(7)).
MAX_PATH_BYTES: Final = 107
_BACKLOG: Final = 128


class Listener:
    """A non-blocking listening socket at ``path``, which only this user can connect to."""

    def __init__(self, path: str):
        """Bind and listen.

        Raises ResourceError if the path is too long, cannot be used, or a live process listens
        there; what a dead one left behind is replaced.
        """
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise ResourceError(
                f"the socket path {path} is longer than {MAX_PATH_BYTES} bytes",
                hint="use a shorter directory, $XDG_RUNTIME_DIR say",
            )
        self.path = path
        self._remove_stale()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Linux gives the file the socket's own mode, less the umask: there is no moment at
            # which others could connect.
            os.fchmod(self.socket.fileno(), 0o600)
            self.socket.bind(path)
            self.socket.listen(_BACKLOG)
            self._file = self._identity()
        except OSError as error:
            self.socket.close()
            raise ResourceError(
                f"cannot listen at {path}: {error.strerror or error}",
                hint="is the directory there, and yours?",
            ) from error

    def accept(self) -> socket.socket | None:
        """Return who has connected, None if nobody waits.

        Raises ResourceError if this process can open no more descriptors.
        """
        try:
            return self.socket.accept()[0]
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                raise ResourceError(
                    f"cannot take a connection at {self.path}: {error.strerror}",
                    hint="raise the limit of open files (ulimit -n)",
                ) from error
            return None

    def close(self) -> None:
        """Stop listening and remove the file, unless somebody has put another one there."""
        self.socket.close()
        try:
            if self._identity() == self._file:
                Path(self.path).unlink()
        except OSError:
            pass  # It is gone already.

    def _identity(self) -> tuple[int, int]:
        info = Path(self.path).lstat()
        return info.st_dev, info.st_ino

    def _remove_stale(self) -> None:
        try:
            if not stat.S_ISSOCK(Path(self.path).lstat().st_mode):
                raise ResourceError(
                    f"{self.path} is there and is no socket", hint="choose another path"
                )
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
                # A full backlog (EAGAIN) is a sign of life as well.
                if probe.connect_ex(self.path) != errno.ECONNREFUSED:
                    raise ResourceError(
                        f"another process serves {self.path}",
                        hint="end it, or choose another path",
                    )
            Path(self.path).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ResourceError(f"cannot replace {self.path}: {error.strerror or error}") from error
