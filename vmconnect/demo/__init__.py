"""The demo machine: a real guest from the distribution's packages.

`image` builds it and keeps it in the cache, `machine` runs it: QEMU with our own vsock device,
both owned by a `keeper` process that ends them when whoever started it has gone.
"""

from vmconnect.demo.image import DemoImage, build
from vmconnect.demo.machine import DemoMachine

__all__ = ["DemoImage", "DemoMachine", "build"]
