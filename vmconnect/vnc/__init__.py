"""A machine's screen, keyboard and mouse over RFB: the VNC protocol (RFC 6143, rfbproto).

`Console`
    the live connection: what most callers want
`Framebuffer`
    the pixels: one array that decoders write and others read
`Engine`
    the protocol alone, with no I/O: bytes in, events out
`vmconnect.vnc.events`
    what the engine tells
`Key`, `Keyboard`, `Mouse`, `ConsoleClipboard`
    what is done to the machine
`vmconnect.vnc.encodings`, `vmconnect.vnc.security`
    one file for every encoding and login, found through one table each
`vmconnect.vnc.walk`
    the loop over an update's small rectangles, in Python and compiled (`_kernel.pyx`)
"""

from vmconnect.vnc.clipboard import ConsoleClipboard
from vmconnect.vnc.console import Console
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.framebuffer import Framebuffer
from vmconnect.vnc.keyboard import Keyboard
from vmconnect.vnc.keys import Key
from vmconnect.vnc.mouse import Mouse

__all__ = ["Console", "ConsoleClipboard", "Engine", "Framebuffer", "Key", "Keyboard", "Mouse"]
