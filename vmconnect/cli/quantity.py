"""How quantities are read and written."""

from __future__ import annotations

import argparse
import math

__all__ = ["amount", "positive", "positive_seconds", "seconds"]


def amount(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if size != count else f"{count} {unit}"


def seconds(text: str) -> float:
    """Read a time, which may be zero, for argparse."""
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return number


def positive_seconds(text: str) -> float:
    """Read a time of more than nothing, for argparse."""
    if not (number := seconds(text)):
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return number


def positive(text: str) -> float:
    """Read a number of more than nothing, for argparse."""
    number = float(text)
    if not math.isfinite(number) or number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return number
