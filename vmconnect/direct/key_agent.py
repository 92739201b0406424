"""The ssh-agent that holds a user's keys (draft-ietf-sshm-ssh-agent)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, cast

from vmconnect.direct.library import paramiko

__all__ = ["KeyAgent"]


class KeyAgent(paramiko.agent.AgentSSH):
    """The agent at a socket: paramiko's own knows only the one of this process's environment."""

    def __init__(self, path: str | None = None):
        """Connect to ``path``, $SSH_AUTH_SOCK if it is None; where nobody is there are no keys."""
        super().__init__()
        where = os.environ.get("SSH_AUTH_SOCK", "") if path is None else path
        if not where:
            return
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(where)
        except OSError:
            connection.close()
            return
        with contextlib.suppress(paramiko.SSHException):  # it is no agent
            cast("Any", self)._connect(connection)

    def close(self) -> None:
        """Close the connection."""
        cast("Any", self)._close()
