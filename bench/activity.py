"""Something to see on an X display, for recordings: ``DISPLAY=:7 python bench/activity.py SCENE``.

`terminals`  text that scrolls in several terminals, and windows that come, move and go
`pictures`   photographs shown and scrolled in a window
`video`      a moving, noisy photograph, 960x540, 25 pictures a second
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# A program's listing is what terminals show most: ours.
_SOURCES = Path(__file__).parent.parent / "vmconnect"

_SCROLL = (
    "import itertools, pathlib, sys, time\n"
    "lines = [l for p in sorted(pathlib.Path(sys.argv[1]).rglob('*.py'))"
    " for l in p.read_text().splitlines()]\n"
    "for n, line in enumerate(itertools.cycle(lines)):\n"
    "    colour = 31 + n // 40 % 6\n"
    "    print(f'\\033[{colour}m{n:6}\\033[0m {line}', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
)


def photograph(width: int, height: int) -> Picture:
    """Return a photograph (Grace Hopper's, of matplotlib's sample data), tiled and mirrored."""
    from matplotlib import cbook
    from PIL import Image

    path = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(str(path)) as image:
        one = np.asarray(image.convert("RGB"))
    row = np.concatenate([one, one[:, ::-1]], axis=1)
    tile = np.concatenate([row, row[::-1]], axis=0)
    times = -(-height // tile.shape[0]), -(-width // tile.shape[1]), 1
    return np.tile(tile, times)[:height, :width]


def landscape(width: int, height: int, seed: int) -> Picture:
    """Return a mountain range in fog: smooth gradients, edges and fine grain."""
    chance = np.random.default_rng(seed)
    sky = np.linspace([90, 140, 220], [240, 220, 190], height)
    picture = np.repeat(sky[:, None, :], width, axis=1)
    rows = np.arange(height)[:, None]
    for ridge in range(5):
        steps = chance.normal(0, 1.5 + ridge * 0.5, width).cumsum()
        line = height * (0.35 + 0.12 * ridge) + steps
        colour = np.array([100, 120, 130]) * (1 - ridge * 0.17)
        picture[rows > line] = colour
    picture += chance.normal(0, 2.5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def form(width: int, height: int, seed: int) -> Picture:
    """Return a window full of text: ours, from this file on."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), (40, 60 + seed * 20, 90))
    pen = ImageDraw.Draw(image)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    for window in range(3):
        left, top = 20 + window * 130, 20 + window * 90 + seed * 10
        pen.rectangle((left, top, left + 700, top + 500), (236, 236, 236), (80, 80, 80))
        pen.rectangle((left, top, left + 700, top + 22), (50, 90, 160))
        for row in range(30):
            text = lines[(seed * 40 + window * 30 + row) % len(lines)]
            pen.text((left + 8, top + 30 + row * 15), text, (20, 20, 20))
    return np.asarray(image)


@contextlib.contextmanager
def _terminals() -> Iterator[None]:
    places = ("+10+10", "+960+10", "+10+540", "+960+540")
    started = []
    for place, pause in zip(places, (0.01, 0.03, 0.1, 0.5), strict=True):
        program = sys.executable, "-c", _SCROLL, str(_SOURCES), str(pause)
        started.append(subprocess.Popen(["xterm", "-geometry", f"130x35{place}", "-e", *program]))
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.wait()


def _play(size: tuple[int, int], draw: Callable[[int], Picture], per_second: float) -> None:
    import pygame

    pygame.display.init()
    surface = pygame.display.set_mode(size)
    clock = pygame.time.Clock()
    frame = 0
    while not pygame.event.get(pygame.QUIT):
        picture = draw(frame)
        pygame.surfarray.blit_array(surface, picture.swapaxes(0, 1))
        pygame.display.flip()
        clock.tick(per_second)
        frame += 1


def _windows() -> None:
    """Draw what a window manager and a form would: frames, buttons, lists, moving."""
    width, height = 500, 360
    canvas = np.zeros((height, width, 3), np.uint8)

    def draw(frame: int) -> Picture:
        canvas[:] = 236
        canvas[:24] = (50, 90, 160) if frame // 10 % 2 else (120, 120, 120)
        for row in range(12):
            top = 36 + row * 26
            selected = row == frame % 12
            canvas[top : top + 22, 10 : width - 10] = (60, 130, 220) if selected else 255
            canvas[top + 8 : top + 14, 20 : 60 + (row * 53 + frame) % 300] = 40
        return canvas

    os.environ["SDL_VIDEO_WINDOW_POS"] = "700,360"
    _play((width, height), draw, 8)


def _pictures() -> None:
    wide = np.concatenate(
        [photograph(1400, 900), *(landscape(1400, 900, seed) for seed in range(3))], axis=0
    )

    def draw(frame: int) -> Picture:
        # Mostly scrolled, now and then the next one.
        top = (frame * 30 + frame // 25 * 450) % (wide.shape[0] - 900)
        return wide[top : top + 900]

    _play((1400, 900), draw, 4)


def _video() -> None:
    chance = np.random.default_rng(7)
    film = np.concatenate([landscape(1600, 540, 3), photograph(1600, 540)], axis=1)
    grain = chance.normal(0, 4, (8, 540, 960, 1)).astype(np.int16)

    def draw(frame: int) -> Picture:
        left = frame * 5 % (film.shape[1] - 960)
        grainy = film[:, left : left + 960] + grain[frame % 8]
        picture: Picture = np.clip(grainy, 0, 255).astype(np.uint8)
        return picture

    _play((960, 540), draw, 25)


def main() -> None:
    """Show the scene that the command line names, until the process is ended."""
    os.environ.setdefault("SDL_VIDEODRIVER", "x11")
    scene = sys.argv[1]
    if scene == "terminals":
        with _terminals():
            _windows()
    else:
        {"pictures": _pictures, "video": _video}[scene]()


if __name__ == "__main__":
    main()
