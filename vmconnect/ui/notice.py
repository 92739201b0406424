"""What a window says about a console that shows nothing now."""

from __future__ import annotations

from dataclasses import dataclass

import pygame

from vmconnect.channel import ChannelState
from vmconnect.errors import MachineOffError
from vmconnect.vnc import Console

__all__ = ["Notice", "draw_notice", "notice_of"]

_CHARACTERS = 160
_HEADING_PIXELS, _DETAIL_PIXELS = 24, 19
_HEADING, _DETAIL, _PANEL, _EDGE = (235, 240, 245), (165, 175, 190), (24, 29, 37), (70, 80, 95)
# How much of the old picture is left, of 255.
_SHADE = 170
_MARGIN, _GAP = 22, 8


@dataclass(frozen=True, slots=True)
class Notice:
    """A state in a word or two, for the title; and what is written over the picture."""

    state: str
    heading: str
    detail: str = ""


def notice_of(console: Console) -> Notice | None:
    """Return what there is to say of a console; nothing, if it is connected."""
    state, reason, name = console.state, console.reason, console.machine
    if state in {ChannelState.READY, ChannelState.CLOSED}:
        return None
    if isinstance(reason, MachineOffError):
        return Notice(f"{reason.state}, waiting", f"{name} is {reason.state}; waiting")
    if reason is None:
        return Notice("connecting", f"Connecting to {name}")
    message = "".join(char if char.isprintable() else " " for char in reason.message)
    detail = message[:1].upper() + message[1:_CHARACTERS]
    if console.framebuffer.generation:
        return Notice("reconnecting", f"The connection to {name} is lost; reconnecting", detail)
    return Notice("waiting", f"Waiting for {name}", detail)


def draw_notice(screen: pygame.Surface, notice: Notice) -> None:
    """Darken ``screen`` and write the notice in its middle."""
    # Where there is a notice the time does not matter; where there is none fonts are not needed.
    import pygame.font

    pygame.font.init()
    width, height = screen.get_size()
    shade = pygame.Surface((width, height))
    shade.set_alpha(_SHADE)
    screen.blit(shade, (0, 0))
    lines = [_line(notice.heading, _HEADING_PIXELS, _HEADING, width)]
    if notice.detail:
        lines.append(_line(notice.detail, _DETAIL_PIXELS, _DETAIL, width))
    inner = max(line.get_width() for line in lines)
    tall = sum(line.get_height() for line in lines) + _GAP * (len(lines) - 1)
    panel = pygame.Rect(0, 0, inner + 2 * _MARGIN, tall + 2 * _MARGIN)
    panel.center = (width // 2, height // 2)
    pygame.draw.rect(screen, _PANEL, panel, border_radius=8)
    pygame.draw.rect(screen, _EDGE, panel, width=1, border_radius=8)
    top = panel.top + _MARGIN
    for line in lines:
        screen.blit(line, (panel.centerx - line.get_width() // 2, top))
        top += line.get_height() + _GAP


def _line(text: str, pixels: int, colour: tuple[int, int, int], width: int) -> pygame.Surface:
    """Return a line of text, of several lines where it is wider than the screen."""
    font = pygame.font.Font(None, pixels)
    font.align = pygame.FONT_CENTER
    room = max(1, width - 4 * _MARGIN)
    longest = room if font.size(text)[0] > room else 0
    return font.render(text, True, colour, None, longest)
