"""The demo machine: a real guest from the distribution's packages.

`image` builds it and keeps it in the cache, `machine` runs it: QEMU with our own vsock device,
both owned by a `keeper` process that ends them when whoever started it has gone. Names are
imported when they are first used: the keeper's process needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmconnect.demo.image import DemoImage, build
    from vmconnect.demo.machine import DemoMachine

__all__ = ["DemoImage", "DemoMachine", "build"]

_HOMES = {"DemoImage": "image", "DemoMachine": "machine", "build": "image"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
