from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.damage import Boxes
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.jobs import Jobs
from vmconnect.vnc.layout import Layout

class Format:
    def __init__(self, layout: Layout) -> None: ...

class Table:
    def __init__(self, jobs: Jobs) -> None: ...

class JpegDecoder:
    def decode(
        self, data: bytes | memoryview, picture: Pixels, swapped: bool, how: int = 2
    ) -> bool: ...

def scan(
    data: memoryview,
    start: int,
    stop: int,
    form: Any,
    screen_width: int,
    screen_height: int,
    table: Any,
    count: int,
    budget: int,
) -> tuple[int, int, int]: ...
def gather(
    data: memoryview, table: Any, count: int, stream: int
) -> tuple[bytes | memoryview, int]: ...
def draw(
    data: memoryview,
    form: Any,
    table: Any,
    first: int,
    last: int,
    inflated: tuple[bytes, ...],
    images: NDArray[np.uint32],
    pixels: Pixels,
    boxes: Boxes,
    used: int,
    wavelet_level: int,
    decode: Callable[[int], Pixels],
) -> tuple[int, int, int]: ...
def draw_hextile(
    data: memoryview,
    start: int,
    stop: int,
    form: Any,
    pixels: Pixels,
    tile: int,
    colours: Pixels,
) -> tuple[int, int, int]: ...
def draw_zrle(data: memoryview, form: Any, pixels: Pixels, tile: int) -> tuple[int, int, int]: ...
