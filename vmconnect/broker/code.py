"""Whether the code that a long-lived process runs is still the code that is installed."""

from __future__ import annotations

import sys
import sysconfig
import time

from vmconnect.mark import Mark

__all__ = ["LoadedCode"]

_PACKAGE = __name__.partition(".")[0]
# A hundred files are looked at in 0.2 ms.
_MOMENT_SECONDS = 0.5


class LoadedCode:
    """The files of this package that have been imported, and the directory of the others.

    An upgrade, or an edit in a checkout, leaves a process with the code of before. Modules that
    were imported since it was last asked are taken as they are then.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Mark] = {}
        self._modules = 0
        self._looked_at = 0.0
        # Other packages come and go by entries in here.
        self._look_at(sysconfig.get_path("purelib"))
        self._look_at_modules()

    def is_current(self) -> bool:
        """Return whether all that has been imported is as it was then, at most a moment ago."""
        now = time.monotonic()
        if now < self._looked_at + _MOMENT_SECONDS:
            return True
        self._looked_at = now
        if any(Mark.of([path]) != mark for path, mark in self._seen.items()):
            return False
        self._look_at_modules()
        return True

    def _look_at_modules(self) -> None:
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for name, module in tuple(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if path and name.partition(".")[0] == _PACKAGE:
                self._look_at(path)

    def _look_at(self, path: str) -> None:
        if path not in self._seen:
            self._seen[path] = Mark.of([path])
