"""Which QEMU brought which command of the guest agent (qga/qapi-schema.json, ``Since:``)."""

from __future__ import annotations

__all__ = ["SINCE"]

SINCE = {
    "guest-ping": "0.15",
    "guest-info": "0.15",
    "guest-shutdown": "0.15",
    "guest-file-open": "0.15",
    "guest-file-close": "0.15",
    "guest-file-read": "0.15",
    "guest-file-write": "0.15",
    "guest-file-seek": "0.15",
    "guest-file-flush": "0.15",
    "guest-fsfreeze-status": "0.15",
    "guest-fsfreeze-freeze": "0.15",
    "guest-fsfreeze-thaw": "0.15",
    "guest-sync-delimited": "1.1",
    "guest-suspend-disk": "1.1",
    "guest-suspend-ram": "1.1",
    "guest-suspend-hybrid": "1.1",
    "guest-network-get-interfaces": "1.1",
    "guest-get-time": "1.5",
    "guest-set-time": "1.5",
    "guest-get-vcpus": "1.5",
    "guest-fsfreeze-freeze-list": "2.2",
    "guest-get-fsinfo": "2.2",
    "guest-set-user-password": "2.3",
    "guest-exec": "2.5",
    "guest-exec-status": "2.5",
    "guest-get-host-name": "2.10",
    "guest-get-osinfo": "2.10",
    "guest-get-timezone": "2.10",
    "guest-get-users": "2.10",
    "guest-get-disks": "5.2",
    "guest-ssh-get-authorized-keys": "5.2",
    "guest-ssh-add-authorized-keys": "5.2",
    "guest-ssh-remove-authorized-keys": "5.2",
}
"""The commands that vmconnect uses, and the version of QEMU that has each first."""
