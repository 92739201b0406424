"""Frames as PNG files."""

from __future__ import annotations

from pathlib import Path

from vmconnect.errors import ResourceError
from vmconnect.replay.frames import Frame, frames
from vmconnect.replay.output import output
from vmconnect.replay.replay import Replay
from vmconnect.vnc.framebuffer import rgb
from vmconnect.vnc.png import encode_png

__all__ = ["write_frames", "write_png"]


def write_png(frame: Frame, path: Path, recording: Path, *, overwrite: bool = False) -> None:
    """Write a frame to a file. Raises ResourceError if it cannot be written or has no pixels."""
    if not frame.pixels.size:
        raise ResourceError("the screen has no pixels to save", machine=recording.name)
    data = encode_png(rgb(frame.pixels))
    with output(path, recording, overwrite=overwrite) as file:
        file.write(data)


def write_frames(replay: Replay, directory: Path, every: float) -> int:
    """Write the frames, ``every`` so many seconds, to a directory and return how many.

    A frame that is as the one before is left out. The directory is made, or empty. The files are
    called by their number and their time in seconds. Raises ResourceError.
    """
    try:
        if directory.exists() and next(directory.iterdir(), None) is not None:
            raise ResourceError(f"{directory} is not empty", hint="name a directory to be made")
        count = 0
        for frame in frames(replay, every):
            if not frame.pixels.size:
                continue
            directory.mkdir(exist_ok=True)
            count += 1
            name = f"{count:05}-{frame.at:010.3f}s.png"
            write_png(frame, directory / name, replay.player.path)
    except OSError as error:
        raise ResourceError(f"cannot write {directory}: {error.strerror}") from error
    return count
