"""The --version option, which looks the version up only when asked."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["Version"]


class Version(argparse.Action):
    """Print the installed version and how the console decodes, then exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: Any, **_named: Any) -> None:
        """Print and exit."""
        from importlib.metadata import version
        from importlib.util import find_spec

        kernel = "compiled" if find_spec("vmconnect.vnc._kernel") else "not compiled"
        parser.exit(message=f"vmconnect {version('vmconnect')} (kernel {kernel})\n")
