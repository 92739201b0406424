"""Starting a broker in the background."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from vmconnect.broker.order import CLIENT, meaningful
from vmconnect.broker.wire import socket_path

__all__ = ["start"]

_MODULE = "vmconnect.cli.broker"
_SUN_PATH_BYTES = 107  # unix(7), without the terminating zero
# What else a process needs to live, and Python and libvirt to be found; secrets are not in it, nor
# is what belongs to a login session that may end before the broker.
_NAMES = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_CACHE_HOME",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
    }
)
_PREFIXES = ("LC_", "VMCONNECT_BROKER")


def start(client: str = "") -> None:
    """Start one, unless it could not listen, and do not wait; where there is one it ends at once.

    ``client`` is the path of the compiled client whose orders it takes as its own installation's.
    It shares no terminal with this process, and begins by letting go of its other descriptors and
    its directory (`vmconnect.cli.broker`). Not by subprocess: its import takes longer.
    """
    if len(os.fsencode(socket_path())) > _SUN_PATH_BYTES:
        return
    environment = meaningful(os.environ) | {
        name: value
        for name, value in os.environ.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
    with contextlib.suppress(OSError):  # everything works without it
        os.posix_spawn(
            sys.executable,
            # -P keeps the working directory's modules out.
            [sys.executable, "-P", "-m", _MODULE],
            {**environment, "PYTHONPATH": os.pathsep.join(paths), CLIENT: client},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, each, os.devnull, os.O_RDWR, 0) for each in (0, 1, 2)
            ],
            setsid=True,
        )
