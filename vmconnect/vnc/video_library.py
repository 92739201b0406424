"""PyAV, which brings FFmpeg's codecs: imported here, by what decodes or encodes video.

It is an extra: whoever neither meets H.264 nor writes a video does without.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

from vmconnect.errors import MissingDependencyError

__all__ = ["is_installed", "require_video", "video_library"]


@cache
def is_installed() -> bool:
    """Return whether there is a PyAV, without importing it."""
    return importlib.util.find_spec("av") is not None


def require_video(what: str) -> None:
    """Raise MissingDependencyError, which names ``what`` needs it, where there is no PyAV."""
    if not is_installed():
        raise _missing(what)


def video_library(what: str) -> ModuleType:
    """Import PyAV and return it. Raises MissingDependencyError, which names ``what`` needs it."""
    try:
        import av
    except ImportError as error:
        raise _missing(what) from error
    return av


def _missing(what: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what} needs PyAV", hint="pip install 'vmconnect[video]'")
