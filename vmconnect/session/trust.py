"""Trust: which SSH host key belongs to which machine.

The store is a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) whose host names are
identities, so OpenSSH reads it too::

    ssh -o UserKnownHostsFile=~/.local/state/vmconnect/known_hosts -o HostKeyAlias=UUID ...
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from vmconnect.paths import state_directory
from vmconnect.session.key_store import KeyStore

__all__ = ["HostKey", "TrustStore"]


@dataclass(frozen=True, slots=True)
class HostKey:
    """An SSH public key: its type's name and its wire form (RFC 4253, section 6.6)."""

    kind: str
    blob: bytes

    @classmethod
    def from_line(cls, line: str) -> HostKey | None:
        """Read ``TYPE BASE64 [COMMENT]``; None if it is no key."""
        words = line.split()
        if len(words) < 2:
            return None
        try:
            return cls(words[0], base64.b64decode(words[1], validate=True))
        except ValueError:
            return None

    @property
    def bits(self) -> int:
        """The key's size as ssh-keygen prints it, 0 for a kind that is not known."""
        if self.kind == "ssh-rsa":
            fields = _fields(self.blob)
            return int.from_bytes(fields[2]).bit_length() if len(fields) == 3 else 0
        curve = self.kind.partition("@")[0].rpartition("nistp")[2]
        return int(curve) if curve in {"256", "384", "521"} else 256 * ("ed25519" in self.kind)

    @property
    def algorithm(self) -> str:
        """The kind in ssh-keygen's word, such as ED25519."""
        name = self.kind.partition("@")[0].removeprefix("ssh-").removeprefix("sk-ssh-")
        security_key = "-SK" if self.kind.startswith("sk-") else ""
        name = "ecdsa" if "ecdsa" in name else name
        return f"{name}{security_key}".upper()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint as OpenSSH prints it."""
        import hashlib  # Only whoever shows a key to a person needs it.

        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


def _fields(blob: bytes) -> list[bytes]:
    """Return the strings of a key's wire form (RFC 4251, section 5); none if it is damaged."""
    fields, rest = [], blob
    while rest:
        size = int.from_bytes(rest[:4])
        if len(rest) < 4 + size:
            return []
        fields.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return fields


class TrustStore(KeyStore[HostKey]):
    """The pinned host keys of guests."""

    noun = "host key"
    remedy = "compare it with the guest's and add --accept-new-host-key"

    def __init__(self, path: Path | None = None):
        super().__init__(path or state_directory() / "known_hosts", HostKey)
