"""The one place where paramiko is imported, without what we do not use of it."""

from __future__ import annotations

import sys
from types import ModuleType

# paramiko.config imports invoke, and with it asyncio and unittest, for "Match exec" lines in
# ssh_config, and copes where it is missing: a third of the import's time. importlib.metadata, with
# email and zipfile, is there to tell paramiko's version, which nobody here asks for: a tenth.
_metadata = ModuleType("importlib.metadata")
_metadata.version = lambda _: ""  # type: ignore[attr-defined]
_instead: dict[str, ModuleType | None] = {
    name: module
    for name, module in (("invoke", None), ("importlib.metadata", _metadata))
    if name not in sys.modules
}
sys.modules.update(_instead)  # type: ignore[arg-type]
try:
    import paramiko
finally:
    for _name in _instead:
        del sys.modules[_name]

__all__ = ["paramiko"]
