"""What a window says instead of a screen."""

from __future__ import annotations

import threading

import numpy as np
import pygame
import pytest

from vmconnect.channel import ChannelState
from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, MachineOffError, VmconnectError
from vmconnect.retry import Backoff, Retry
from vmconnect.streams import Stream
from vmconnect.ui.notice import Notice, draw_notice, notice_of
from vmconnect.vnc import Console

PATIENCE = 20.0


def console_that_fails(error: VmconnectError) -> Console:
    def opener(_deadline: Deadline) -> Stream:
        raise error

    return Console.open(opener, "web01", retry=Retry(Backoff(3600, 3600)), at_once=True)


@pytest.mark.parametrize(
    ("error", "notice"),
    [
        (MachineOffError("off"), Notice("off, waiting", "web01 is off; waiting")),
        (MachineOffError("saved"), Notice("saved, waiting", "web01 is saved; waiting")),
        (
            ConnectError("nobody answers at \x1b[2J"),
            Notice("waiting", "Waiting for web01", "Nobody answers at  [2J"),
        ),
    ],
)
def test_why_there_is_nothing_to_show(error: VmconnectError, notice: Notice) -> None:
    with console_that_fails(error) as console:
        assert console._states.wait_for(
            lambda state: state is ChannelState.LOST, Deadline(PATIENCE)
        )
        assert notice_of(console) == notice
        # A picture was there before.
        console.framebuffer.generation = 1
        lost = notice_of(console)
        assert lost is not None
        assert lost == notice or lost.heading == "The connection to web01 is lost; reconnecting"
    assert notice_of(console) is None


def test_at_the_very_beginning() -> None:
    go_on = threading.Event()

    def opener(_deadline: Deadline) -> Stream:
        go_on.wait(PATIENCE)
        raise ConnectError("no")

    console = Console.open(opener, "web01", retry=Retry(), at_once=True)
    assert notice_of(console) == Notice("connecting", "Connecting to web01")
    go_on.set()
    console.close()


@pytest.mark.parametrize("size", [(720, 400), (64, 48), (1, 1), (1920, 1080)])
@pytest.mark.parametrize("detail", ["", "The server has closed the connection " * 4])
def test_a_notice_is_in_the_middle_of_a_dark_picture(size: tuple[int, int], detail: str) -> None:
    screen = pygame.Surface(size)
    screen.fill((200, 200, 200))
    draw_notice(screen, Notice("x", "web01 is off; waiting", detail))
    pixels = pygame.surfarray.array3d(screen).astype(int)
    if min(size) < 100:
        return  # It is enough that it does not fail.
    assert (pixels[0, 0] < 80).all()
    bright = np.argwhere(pixels.min(axis=2) > 200)
    assert len(bright) > 50
    # In the middle, and with nothing cut off.
    low, high = bright.min(axis=0), bright.max(axis=0)
    assert abs((low + high)[0] - size[0]) < 60
    assert (low > 0).all()
    assert (high < np.array(size) - 1).all()
