"""What a channel is asked for over SSH: a command, a shell, a terminal (RFC 4254, section 6)."""

from __future__ import annotations

from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.direct.library import paramiko
from vmconnect.errors import GuestError

__all__ = ["request", "start_command"]


def request(channel: Any, kind: str, details: bytes, deadline: Deadline, refusal: str) -> None:
    """Make a channel request and wait until it is granted.

    paramiko's own methods know no modes of terminals, and no end of waiting. Raises GuestError,
    which says ``refusal``, where it is not granted, TimeoutError, and what paramiko raises.
    """
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(kind)
    message.add_boolean(True)
    message.add_bytes(details)
    channel._event_pending()
    if channel.closed:
        raise paramiko.SSHException("Channel is not open")
    channel.transport._send_user_message(message)
    if not channel.event.wait(deadline.remaining()):
        raise TimeoutError
    if not channel.event_ready and channel.transport.is_active():
        raise GuestError(refusal, hint="its sshd_config may forbid it")
    channel._wait_for_event()


def start_command(channel: Any, command: str, deadline: Deadline) -> None:
    """Have the user's shell run a command on the channel; raises as `request`."""
    words = paramiko.Message()
    words.add_string(command.encode("utf-8", "surrogateescape"))
    request(channel, "exec", words.asbytes(), deadline, "it runs no commands")
