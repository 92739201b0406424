"""A keyring in a file: what Secret Service is elsewhere, which cannot run without a desktop."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

__all__ = ["FileKeyring", "UnsafeKeyring"]


class FileKeyring(KeyringBackend):
    """Keeps passwords in the file that ``$VMCONNECT_TEST_KEYRING`` names.

    Without one it is locked, as a keyring whose dialogue nobody answers.
    """

    priority = 5.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._read(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        kept = self._read()
        if kept.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("no such password")
        self._write(kept)

    def _path(self) -> Path:
        name = os.environ.get("VMCONNECT_TEST_KEYRING")
        if not name:
            raise KeyringLocked("nobody unlocks it")
        return Path(name)

    def _read(self) -> dict[str, str]:
        path = self._path()
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write(self, passwords: dict[str, str]) -> None:
        self._path().write_text(json.dumps(passwords))


class UnsafeKeyring(FileKeyring):
    """One that others can read, as the library's word for it goes."""

    priority = 0.5
