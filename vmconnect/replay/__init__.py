"""What is made of a recorded session: a picture, a film, its text, what it consists of.

`Replay`
    a recording that is gone through without waiting
`Frame`, `frames`, `frame_at`
    its screen at times
`write_png`, `write_frames`, `write_video`
    the same in files
`Summary`, `summarize`
    what is in it
`Screening`
    a recording shown at its own pace, as a window shows a console

Recordings themselves are `vmconnect.vnc.recording`'s.
"""

from vmconnect.replay.frames import Frame, frame_at, frames
from vmconnect.replay.replay import Replay
from vmconnect.replay.screening import Screening
from vmconnect.replay.stills import write_frames, write_png
from vmconnect.replay.summary import Summary, summarize
from vmconnect.replay.video import write_video

__all__ = [
    "Frame",
    "Replay",
    "Screening",
    "Summary",
    "frame_at",
    "frames",
    "summarize",
    "write_frames",
    "write_png",
    "write_video",
]
