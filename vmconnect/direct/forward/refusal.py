"""Why the guest did not connect, in words that help."""

from __future__ import annotations

from vmconnect.direct.forward.socks import SocksOutcome
from vmconnect.direct.transport import CONNECT_FAILED, PROHIBITED
from vmconnect.errors import GuestError
from vmconnect.streams import Tcp, Unix

__all__ = ["outcome_of", "permission", "refused"]


def permission(end: Tcp | Unix) -> str:
    """Return what in the guest's sshd_config permits such a forward."""
    return "AllowStreamLocalForwarding" if isinstance(end, Unix) else "AllowTcpForwarding"


def refused(target: Tcp | Unix, reason: int, text: str, machine: str) -> GuestError:
    """Return the error for a channel to ``target`` that the guest refused; ``text`` is its word."""
    said = f": {text}" if text and text.isprintable() else ""
    if reason == CONNECT_FAILED:
        return GuestError(
            f"the guest cannot connect to {target}{said}",
            machine=machine,
            hint="does anything listen there, seen from the guest?",
        )
    if reason == PROHIBITED:
        allowed = permission(target)
        return GuestError(
            f"the guest's SSH server does not connect us to {target}{said}",
            machine=machine,
            hint=f"does anything listen there, and does sshd_config permit it ({allowed})?",
        )
    return GuestError(f"the guest refuses to connect us to {target}{said}", machine=machine)


def outcome_of(reason: int) -> SocksOutcome:
    """Return what a client that came by SOCKS is told of it."""
    if reason == CONNECT_FAILED:
        return SocksOutcome.REFUSED
    return SocksOutcome.NOT_PERMITTED if reason == PROHIBITED else SocksOutcome.FAILED
