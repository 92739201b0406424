"""The one place where paramiko is imported, without what we do not use of it."""

from __future__ import annotations

import sys

# paramiko.config imports invoke, and with it asyncio and unittest, for "Match exec" lines in
# ssh_config, and copes where it is missing: a third of the import's time.
_wanted = "invoke" not in sys.modules
if _wanted:
    sys.modules["invoke"] = None  # type: ignore[assignment]
try:
    import paramiko
finally:
    if _wanted:
        del sys.modules["invoke"]

__all__ = ["paramiko"]
