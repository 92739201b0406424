"""A way in through the guest agent: an SSH key of ours, for the time of a login.

The key is made in memory and never written on this side. In the guest it is a line of the user's
``authorized_keys`` for as long as the login takes. Its comment, ``vmconnect OWNER expires=TIME``,
says whose it is, so that what a killed process left is known; where the SSH server understands it,
``expiry-time`` makes it worthless after two minutes at any rate.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.guest_agent import GuestAgent
from vmconnect.direct.library import paramiko
from vmconnect.errors import GuestError, UnsupportedError, VmconnectError

__all__ = ["LIFETIME_SECONDS", "authorized_line", "temporary_key"]

LIFETIME_SECONDS = 120
_REMOVE_SECONDS = 10.0

_LOG = logging.getLogger(__name__)

_COMMENT = re.compile(
    r" vmconnect (?P<owner>[0-9a-f-]{36}) expires=(?P<when>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$"
)
_WHEN = "%Y-%m-%dT%H:%M:%SZ"
_OPENSSH = re.compile(r"SSH-2\.0-OpenSSH_(?:for_Windows_)?(\d{1,3})\.(\d{1,3})")
# expiry-time came with 7.7, and times in UTC (the Z) with 9.1 (OpenSSH's release notes).
_EXPIRY, _EXPIRY_IN_UTC = (7, 7), (9, 1)


@contextlib.contextmanager
def temporary_key(
    agent: GuestAgent, user: str, owner: str, server: str, deadline: Deadline
) -> Iterator[paramiko.PKey]:
    """Let a fresh key in as ``user``, give it, and take it out again at the end of the block.

    ``owner`` is a UUID of whoever holds this agent's lock: its keys in the guest are left over,
    and are removed, as are others' when their time is over. ``server`` is what the SSH server
    greeted with. Raises what `GuestAgent` does; GuestError if there is no such user.
    """
    now = _clock(agent, deadline)
    _remove_leftovers(agent, user, owner, now, deadline)
    key, public = _fresh_key()
    expires = now + timedelta(seconds=LIFETIME_SECONDS)
    line = authorized_line(public, owner, expires, _local_expiry(agent, server, expires, deadline))
    try:
        agent.add_authorized_keys(user, [line], deadline)
        yield key
    finally:
        # In its own time: the deadline may be what has ended the block.
        try:
            agent.remove_authorized_keys(user, [line], Deadline(_REMOVE_SECONDS))
        except GuestError:
            pass  # As it refused to add it.
        except VmconnectError as error:
            _LOG.warning("a key stays in %s's authorized_keys until it expires: %s", user, error)


def authorized_line(public: str, owner: str, expires: datetime, option: str | None) -> str:
    """Return the line of authorized_keys (sshd(8)) for a public key, ``KIND BASE64``.

    ``option`` is the time of ``expiry-time`` as the server understands it, None for none.
    """
    limit = f'expiry-time="{option}" ' if option else ""
    return f"{limit}{public} vmconnect {owner} expires={expires.strftime(_WHEN)}"


def _clock(agent: GuestAgent, deadline: Deadline) -> datetime:
    """Return the time in the guest, whose sshd judges by it."""
    try:
        return datetime.fromtimestamp(agent.time(deadline), UTC)
    except (UnsupportedError, GuestError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(time.time(), UTC)


def _remove_leftovers(
    agent: GuestAgent, user: str, owner: str, now: datetime, deadline: Deadline
) -> None:
    try:
        lines = agent.authorized_keys(user, deadline)
    except GuestError:
        return  # No such file, or no such user, of whom we shall hear.
    left = [line for line in lines if _is_left(line, owner, now)]
    if left:
        agent.remove_authorized_keys(user, left, deadline)


def _is_left(line: str, owner: str, now: datetime) -> bool:
    match = _COMMENT.search(line)
    if match is None:
        return False
    try:
        expires = datetime.strptime(match["when"], _WHEN).replace(tzinfo=UTC)
    except ValueError:
        return False
    return match["owner"] == owner or expires < now


def _fresh_key() -> tuple[paramiko.PKey, str]:
    """Return an Ed25519 key, and its public part as ``KIND BASE64``."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate().private_bytes(
        form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
    )
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))
    return key, f"{key.get_name()} {key.get_base64()}"


def _local_expiry(
    agent: GuestAgent, server: str, expires: datetime, deadline: Deadline
) -> str | None:
    """Return ``expires`` for the option expiry-time; None where the server would not know it."""
    match = _OPENSSH.match(server)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version >= _EXPIRY_IN_UTC:
        return expires.strftime("%Y%m%d%H%M%SZ")
    if version < _EXPIRY:
        return None
    try:
        local = expires + timedelta(seconds=agent.time_zone(deadline).offset_s)
    except (UnsupportedError, GuestError, OverflowError):
        return None
    return local.strftime("%Y%m%d%H%M%S")
