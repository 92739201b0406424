"""``vmconnect replay``: a recording in a window, or as pictures, a video, text, figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.progress import Bar
from vmconnect.cli.quantity import amount, positive_seconds, rate, seconds
from vmconnect.cli.voice import printable, say
from vmconnect.errors import TargetError, UnsupportedError

if TYPE_CHECKING:
    from vmconnect.errors import VmconnectError
    from vmconnect.replay import Summary

__all__ = ["configure", "run"]

# How many of the screen's sizes are named.
_MOST_SIZES = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "FILE is what vmconnect record has written, or one of TigerVNC's recordings. Of one that "
        "is cut or damaged, all is shown that came before; the exit code is 1 then."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the recording")
    parser.add_argument(
        "--speed",
        metavar="X",
        type=_speed,
        default=1.0,
        help="X times as fast as it was; max: as fast as can be (window only)",
    )
    parser.add_argument(
        "--at", metavar="SECONDS", type=seconds, help="begin there; the frame or the text then"
    )
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument(
        "--png", metavar="PATH", type=Path, help="write the last frame, or that of --at, to a file"
    )
    outputs.add_argument(
        "--frames", metavar="DIR", type=Path, help="write a PNG file for each change, one a second"
    )
    outputs.add_argument(
        "--video", metavar="OUT", type=Path, help="write a video: OUT.mp4, OUT.mkv or OUT.webm"
    )
    outputs.add_argument(
        "--text", action="store_true", help="print the text of a VGA text screen at the end"
    )
    outputs.add_argument("--info", action="store_true", help="say what the recording consists of")
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=positive_seconds,
        default=1.0,
        help="the time between two of --frames (default: 1)",
    )
    parser.add_argument(
        "--fps",
        metavar="N",
        type=rate,
        default=25.0,
        help="how many frames a second the video has (default: 25)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite PATH or OUT")
    parser.add_argument("--json", action="store_true", help="--info as a JSON object")


def _speed(text: str) -> float | None:
    return None if text == "max" else rate(text)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for and return the exit code. Raises what ended the recording too early."""
    if arguments.video is not None:
        trouble = _video(arguments)
    elif arguments.frames is not None:
        trouble = _frames(arguments)
    elif arguments.info or arguments.json:
        trouble = _info(arguments)
    elif arguments.png is not None or arguments.text:
        trouble = _frame(arguments)
    else:
        trouble = _window(arguments)
    if trouble is not None:
        raise trouble
    return 0


def _window(arguments: argparse.Namespace) -> VmconnectError | None:
    from vmconnect.replay import Replay, Screening
    from vmconnect.ui.window import Window, require_display

    require_display("use --png, --frames, --video or --text")
    with Bar(f"Reading {printable(arguments.file.name)}") as bar:
        replay = Replay(arguments.file, bar)
        screening = Screening(replay, arguments.speed, arguments.at or 0.0)
    with screening, Window(screening) as window:
        screening.start()
        window.run()
    return screening.trouble


def _frame(arguments: argparse.Namespace) -> VmconnectError | None:
    from vmconnect.replay import Replay, frame_at, write_png
    from vmconnect.replay.output import check_output
    from vmconnect.vnc.screen_text import read_text

    if arguments.png is not None:
        check_output(arguments.png, arguments.file, overwrite=arguments.force)
    with Bar(f"Reading {printable(arguments.file.name)}") as bar:
        replay = Replay(arguments.file, bar)
        frame = frame_at(replay, arguments.at)
    if arguments.png is not None:
        write_png(frame, arguments.png, arguments.file, overwrite=arguments.force)
        return replay.trouble
    lines = read_text(frame.pixels)
    if lines is None:
        raise UnsupportedError(
            "the screen is no VGA text screen then", machine=arguments.file.name, hint="try --png"
        )
    _print(lines)
    return replay.trouble


def _frames(arguments: argparse.Namespace) -> VmconnectError | None:
    from vmconnect.replay import Replay, write_frames

    with Bar(f"Writing {printable(str(arguments.frames))}") as bar:
        replay = Replay(arguments.file, bar)
        count = write_frames(replay, arguments.frames, arguments.every)
    say(f"{arguments.frames}: {count} frames")
    return replay.trouble


def _video(arguments: argparse.Namespace) -> VmconnectError | None:
    from vmconnect.replay import Replay, summarize, write_video
    from vmconnect.replay.output import check_output
    from vmconnect.vnc.video_library import require_video

    if arguments.speed is None:
        raise TargetError("a video has no speed max", hint="--speed 10, say")
    require_video("a video")
    check_output(arguments.video, arguments.file, overwrite=arguments.force)
    with Bar(f"Reading {printable(arguments.file.name)}") as bar:
        summary = summarize(arguments.file, bar)
    with Bar(f"Writing {printable(arguments.video.name)}") as bar:
        replay = Replay(arguments.file)
        count = write_video(
            replay,
            arguments.video,
            summary,
            fps=arguments.fps,
            speed=arguments.speed,
            overwrite=arguments.force,
            progress=bar,
        )
    width, height = summary.largest
    say(f"{arguments.video}: {count / arguments.fps:.1f} s, {count} frames of {width}x{height}")
    return replay.trouble


def _info(arguments: argparse.Namespace) -> VmconnectError | None:
    from vmconnect.replay import summarize

    with Bar(f"Reading {printable(arguments.file.name)}") as bar:
        summary = summarize(arguments.file, bar)
    if arguments.json:
        _print([json.dumps(_as_json(summary), indent=2)])
    else:
        _print(f"{what:11}{figure}" for what, figure in _figures(summary))
    return summary.trouble


def _figures(summary: Summary) -> Iterable[tuple[str, str]]:
    yield "desktop", printable(summary.name) or "-"
    yield "duration", f"{summary.seconds:.1f} s"
    yield "received", amount(summary.bytes)
    yield "updates", f"{summary.updates:,}"
    sizes = [f"{width}x{height}" for width, height in summary.sizes]
    left = len(sizes) - _MOST_SIZES
    more = [f"and {left} more"] if left > 0 else []
    yield "screen", ", ".join([*sizes[:_MOST_SIZES], *more]) or "-"
    for i, (name, count) in enumerate(summary.rectangles.items()):
        yield "" if i else "rectangles", f"{count:,} {name}"


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "desktop": summary.name,
        "seconds": round(summary.seconds, 6),
        "bytes": summary.bytes,
        "updates": summary.updates,
        "sizes": [list(size) for size in summary.sizes],
        "rectangles": summary.rectangles,
        "trouble": str(summary.trouble) if summary.trouble else None,
    }


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201
