"""Asking real servers what they have read, and that they are as before when they have answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmconnect.vnc.events import Event

from .conftest import Qemu, RealServer
from .test_servers import PATIENCE, wait_for_text


def test_qemu(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std")
    with server.open() as console:
        wait_for_text(console)
        server.qmp("stop")
        asked = console.framebuffer.generation
        for _ in range(20):
            console.mouse.click()
            console.confirm(PATIENCE)
        # It goes on to send updates: with a question of another form it would not.
        server.qmp("system_reset")
        server.qmp("cont")
        console.wait_for(lambda each: each.framebuffer.generation > asked, PATIENCE)


def test_xtigervnc(xtigervnc: Callable[..., RealServer]) -> None:
    with xtigervnc("-SecurityTypes", "None").open() as console:
        console.pixels(PATIENCE)
        console.keyboard.press("shift")
        console.confirm(PATIENCE)
        events: list[Event] = []
        console.subscribe(events.append)
        before, generation = len(events), console.framebuffer.generation
        for _ in range(20):
            console.keyboard.press("shift")
            console.confirm(PATIENCE)
        # Nobody has seen anything of it.
        assert events[before:] == []
        assert console.framebuffer.generation == generation
        console.resize(800, 600, PATIENCE)
        console.wait_for(lambda each: each.framebuffer.generation > generation, PATIENCE)


@pytest.mark.parametrize("times", [1, 30])
def test_a_qemu_that_stands_still_tells_of_nothing(qemu: Callable[..., Qemu], times: int) -> None:
    """Not even of the pixel that was asked for."""
    server = qemu("-vga", "std", "-S")
    with server.open() as console:
        console.pixels(PATIENCE)
        generation = console.framebuffer.generation
        for _ in range(times):
            console.mouse.click()
            console.confirm(PATIENCE)
        server.qmp("query-status")
        assert console.framebuffer.generation == generation
