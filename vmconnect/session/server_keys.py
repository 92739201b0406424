"""Trust: which VNC server's certificate or RSA key belongs to which machine."""

from __future__ import annotations

from pathlib import Path

from vmconnect.paths import state_directory
from vmconnect.session.key_store import KeyStore
from vmconnect.vnc.policy import ServerKey

__all__ = ["ServerKeyStore"]


class ServerKeyStore(KeyStore[ServerKey]):
    """The pinned keys of VNC servers."""

    noun = "VNC server's key"
    remedy = "compare it with the server's and add --accept-new-host-key, or name its --ca"

    def __init__(self, path: Path | None = None):
        super().__init__(path or state_directory() / "vnc_keys", ServerKey)
