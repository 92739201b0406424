"""PyAV, which brings FFmpeg's codecs: imported here, by what decodes or encodes video.

It is an extra: whoever neither meets H.264 nor writes a video does without.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from vmconnect.errors import MissingDependencyError

__all__ = ["LEAST_VERSION", "is_installed", "require_video", "video_library"]

LEAST_VERSION = 18


@cache
def is_installed() -> bool:
    """Return whether there is a PyAV that is new enough, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("av").partition(".")[0]) >= LEAST_VERSION
    except (PackageNotFoundError, ValueError):
        return False


def require_video(what: str) -> None:
    """Raise MissingDependencyError, which names ``what`` needs it, where there is no such PyAV."""
    if not is_installed():
        raise _missing(what)


def video_library(what: str) -> ModuleType:
    """Import PyAV and return it. Raises MissingDependencyError, which names ``what`` needs it."""
    require_video(what)
    try:
        import av
    except ImportError as error:
        raise _missing(what) from error
    return av


def _missing(what: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{what} needs PyAV {LEAST_VERSION} or later", hint="pip install 'vmconnect[video]'"
    )
