"""How quantities are read and written."""

from __future__ import annotations

import argparse
import math

__all__ = ["amount", "duration", "positive_seconds", "rate", "seconds"]

_LEAST_SECONDS = 0.001
_LEAST_RATE, _MOST_RATE = 0.01, 1000


def amount(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if size != count else f"{count} {unit}"


def duration(seconds_: float) -> str:
    """Return a time as people read it, in its two largest units."""
    whole = int(seconds_)
    for unit, size, smaller, step in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // step}{smaller}"
    return f"{whole // 60}m {whole % 60}s" if whole >= 60 else f"{whole}s"


def seconds(text: str) -> float:
    """Read a time, which may be zero, for argparse."""
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return number


def positive_seconds(text: str) -> float:
    """Read a time of a millisecond at least, for argparse."""
    if (number := seconds(text)) < _LEAST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return number


def rate(text: str) -> float:
    """Read how often or how fast something is, for argparse."""
    number = float(text)
    if not _LEAST_RATE <= number <= _MOST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not from {_LEAST_RATE} to {_MOST_RATE}")
    return number
