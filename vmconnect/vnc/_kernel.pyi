import numpy as np
from numpy.typing import NDArray

def walk(
    data: memoryview,
    start: int,
    stop: int,
    pixels: NDArray[np.uint32],
    boxes: NDArray[np.int32],
    used: int,
    count: int,
) -> tuple[int, int, int]: ...
