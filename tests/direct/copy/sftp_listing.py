"""An SFTP server that lists what no directory has, behind a real sshd.

``python -m tests.direct.copy.sftp_listing FILE`` is the subsystem; the file says what it lists.
"""

from __future__ import annotations

import json
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import paramiko
from paramiko import sftp

from tests.direct.copy.sftp_server import Hostile, attributes, packed, status, string

__all__ = ["TREE", "Listing"]

TREE = b"/tree"
_DIRECTORY = stat.S_IFDIR | 0o755
_FILE = stat.S_IFREG | 0o644


class Listing(Hostile):
    """`TREE` lists names, each with the mode that is told of it; any other directory lists ``x``.

    What is told of a name that is listed twice changes from one to the other. Links lead to
    ``target``; all files are of three bytes. There is nothing else.
    """

    def __init__(self, names: Sequence[tuple[bytes, int]], target: bytes = b""):
        super().__init__(size=3, pieces=1, piece=3)
        self._names = list(names)
        self._target = target
        self._told = list(names)
        self._open: set[bytes] = set()

    def subsystem(self, path: Path) -> str:
        """Return the line of sshd_config that makes it the server; ``path`` is for its words."""
        names = [(name.hex(), mode) for name, mode in self._names]
        path.write_text(json.dumps({"names": names, "target": self._target.hex()}))
        root = Path(__file__).parents[3]
        words = ["env", f"PYTHONPATH={root}", sys.executable, "-m", __name__, str(path)]
        return f"Subsystem sftp {shlex.join(words)}"

    @classmethod
    def read(cls, path: Path) -> Listing:
        """Return the one that was written for `subsystem`."""
        words = json.loads(path.read_text())
        names = [(bytes.fromhex(name), mode) for name, mode in words["names"]]
        return cls(names, bytes.fromhex(words["target"]))

    def _answer(self, kind: int, message: paramiko.Message) -> tuple[int, bytes]:
        match kind:
            case sftp.CMD_OPENDIR:
                return sftp.CMD_HANDLE, string(message.get_binary())
            case sftp.CMD_READDIR:
                return self._listed(message.get_binary())
            case sftp.CMD_CLOSE:
                self._open.discard(message.get_binary())
            case sftp.CMD_STAT | sftp.CMD_LSTAT:
                mode = self._mode(message.get_binary())
                if mode is None:
                    return status(sftp.SFTP_NO_SUCH_FILE)
                return sftp.CMD_ATTRS, attributes(mode, self.size)
            case sftp.CMD_READLINK:
                return sftp.CMD_NAME, packed(1) + string(self._target) + string(b"") + packed(0)
        return super()._answer(kind, message)

    def _listed(self, path: bytes) -> tuple[int, bytes]:
        if path in self._open:
            return status(sftp.SFTP_EOF)
        self._open.add(path)
        names = [name for name, _ in self._names] if path == TREE else [b"x"]
        each = [string(name) + string(b"") + packed(0) for name in names]
        return sftp.CMD_NAME, packed(len(each)) + b"".join(each)

    def _mode(self, path: bytes) -> int | None:
        if path == TREE:
            return _DIRECTORY
        # As the client joins them: a name from the root on is a path by itself.
        told = [each for each in self._told if path in {TREE + b"/" + each[0], each[0]}]
        if len(told) > 1:
            self._told.remove(told[0])
        if told:
            return told[0][1]
        return _FILE if path.endswith(b"/x") else None


if __name__ == "__main__":
    out = sys.stdout.buffer

    def say(data: bytes) -> None:
        out.write(data)
        out.flush()

    Listing.read(Path(sys.argv[1])).answer(sys.stdin.buffer, say)
