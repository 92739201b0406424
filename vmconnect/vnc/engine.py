"""The RFB client as an engine: bytes in, events out, no I/O (RFC 6143 and rfbproto).

Theory of operation: the whole protocol is one nest of steps (`vmconnect.vnc.inbox.Reading`) that
yield when the bytes at hand do not suffice. Whoever has bytes gives them by `Engine.receive`, or
reads them into `Engine.next_buffer` and says how many by `Engine.received`; both return what
happened, and `Engine.data_to_send` what is to be sent. Bytes may be cut anywhere.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vmconnect.errors import (
    ClosedError,
    ConnectionLostError,
    ResourceError,
    RfbError,
    StateError,
    VmconnectError,
)
from vmconnect.vnc import messages
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.damage import DamageList
from vmconnect.vnc.encodings import OFFERED, Rectangle, coarse_quality, wavelet_level
from vmconnect.vnc.events import Damage, Event, LedState, Screen
from vmconnect.vnc.extensions import Clipboard
from vmconnect.vnc.extensions.continuous_updates import enable_continuous_updates
from vmconnect.vnc.framebuffer import MAX_PIXELS, MAX_SIDE, Framebuffer, Pixels
from vmconnect.vnc.h264_streams import H264Streams
from vmconnect.vnc.handshake import handshake
from vmconnect.vnc.inbox import EndOfStreamError, Inbox, Reading
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.pixel_format import OURS, PixelFormat
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.security import NONE, Login
from vmconnect.vnc.server_messages import SERVER_MESSAGES
from vmconnect.vnc.states import TRANSITIONS, State
from vmconnect.vnc.text import printable
from vmconnect.vnc.tunnel import NestedTunnel, Tunnel
from vmconnect.vnc.walk import Kernel, Walk, best_kernel

__all__ = ["MAX_NAME_BYTES", "MAX_UNSENT_BYTES", "Engine"]

MAX_NAME_BYTES = 64 * 1024
"""A desktop name beyond this breaks the connection."""

MAX_UNSENT_BYTES = 8 * 1024 * 1024
"""A server that asks for more than this at once, by fences or for our clipboard, is broken."""

_U32 = struct.Struct(">I")
_CORNER = 64


class Engine:
    """One RFB connection, seen from the client; used from one thread at a time.

    What the server has told is in ``state``, ``name``, ``screens``, ``resizable`` (it takes
    SetDesktopSize), ``scancodes`` (it takes extended key events), ``absolute`` (the pointer's
    mode), ``leds``, ``powerable`` (it takes xvp's requests), ``audible`` (it can send sound),
    ``extended_buttons`` and ``continuous`` (updates come unasked).

    With ``pull`` the engine asks for the whole screen at the beginning and after each change of
    size; then for continuous updates where they are offered, else for what changed as soon as an
    update begins to come, so that the next is under way while this one is decoded.

    ``encodings`` are the numbers that servers are told, the preferred first; one of the coarse
    qualities among them (`vmconnect.vnc.encodings.QUALITIES`) allows losses. ``pixel_format`` is
    what they are asked for; the framebuffer has its words where it is native (see
    `vmconnect.vnc.layout`), else 0x00RRGGBB. Rectangles are decoded by ``threads`` threads, of
    which one is the caller's, and by another ``kernel`` than the best where one is given. ``tap``
    is called with all bytes from ServerInit on, decrypted, before they are read; ``tell`` with each
    event at once, before what comes after it is read. ``policy`` says
    what the server must prove before it is told a secret; ``login`` is how we have logged in.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        policy: Policy | None = None,
        framebuffer: Framebuffer | None = None,
        shared: bool = True,
        pull: bool = True,
        pixel_format: PixelFormat = OURS,
        encodings: Sequence[int] = OFFERED,
        threads: int = 1,
        kernel: Kernel | None = None,
        tap: Callable[[memoryview], object] | None = None,
        tell: Callable[[Event], object] | None = None,
    ):
        self.credentials = credentials or Credentials()
        self.policy = policy or Policy()
        self.login: Login = NONE
        self.offered: list[str] = []
        """The names of the logins that the server offers, outer and inner."""
        self.proved = False
        """Whether the server has proved who it is."""
        self.capabilities_follow = False
        """Whether Tight's lists come after ServerInit."""
        self.layer: Tunnel | None = None
        """What the login lets all go through after the SecurityResult."""
        self.framebuffer = framebuffer or Framebuffer()
        self.shared = shared
        self.inbox = Inbox()
        self._tap = tap
        self._tell = tell
        # Whether ServerInit has been reached, so that what comes goes to the tap.
        self._tapped = False
        self._buffer = memoryview(b"")
        self.state = State.VERSION
        self.message = ""
        """The message being read, for errors."""
        self.name = ""
        self.screens: tuple[Screen, ...] = ()
        self.resizable = False
        self.scancodes = False
        self.absolute = True
        self.leds: LedState | None = None
        self.powerable = False
        self.audible = False
        self.extended_buttons = False
        self.continuous = False
        self.answers = 0
        """How often the server has said again what the screen's size is (see `receipts`)."""
        self.disturbances = 0
        """How often something was sent that may make it do so."""
        self.asked = 0
        """How many updates of the screen's first pixel may come that show nothing new."""
        self.clipboard = Clipboard()
        self.pull = pull
        self.encodings = tuple(encodings)
        self.kernel = kernel or best_kernel()
        self.walk = Walk(self, threads)
        self.walk.wavelet_level = wavelet_level(coarse_quality(self.encodings))
        self.jpeg_tables: dict[int, bytes] = {}
        """The tables of the last picture in encoding JPEG, by marker."""
        self.h264_streams = H264Streams()
        self.tally: Counter[int] | None = None
        """Where rectangles are counted by the number of their encoding, if somebody wants that."""
        self._colour_map = np.zeros(256, np.uint32)
        self._use(pixel_format)
        self.damage = DamageList()
        self.rectangles_left = 0
        """How many rectangles of the present update are still to come."""
        self.cancelled = False
        self._first_name = ""
        self._events: list[Event] = []
        self._out = bytearray()
        self._tunnel: Tunnel | None = None
        # What was to be sent before there was a tunnel.
        self._clear = b""
        self._steps = self._run()
        next(self._steps)

    # What whoever has the bytes uses.

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the server and return what happened.

        A large ``data`` is read where it lies, without a copy. Raises RfbError for what the
        protocol does not allow, AuthenticationError or ConnectError if the server refuses us,
        TrustError if the policy refuses the server, ResourceError if memory is short; the engine
        is CLOSED then, and what happened before is in `events`. Raises StateError when CLOSED
        already.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        position = 0
        while position < len(view):
            if self._tunnel is not None:
                self._tunnel.feed(view[position:])
                position = len(view)
            elif self.inbox.lendable:
                self._show(view[position:])
                self.inbox.lend(view[position:])
                position = len(view)
                try:
                    self._step()
                finally:
                    self.inbox.reclaim()
            else:
                count = self.inbox.copy_from(view[position:])
                self._show(view[position : position + count])
                position += count
                self._step()
        self._drain()
        return self.events()

    def next_buffer(self) -> memoryview:
        """Return where the next bytes from the server should be written, for `received`."""
        self._check_open()
        self._buffer = (self._tunnel or self.inbox).next_buffer()
        return self._buffer

    @property
    def patient(self) -> bool:
        """Whether nothing can be done before `next_buffer` is full: it may be filled at once."""
        return self._tunnel is None and self.inbox.filling

    def received(self, count: int) -> list[Event]:
        """Take the first ``count`` bytes of `next_buffer`, as `receive` does."""
        self._check_open()
        if self._tunnel is not None:
            self._tunnel.feed(self._buffer[:count])
        else:
            self._show(self._buffer[:count])
            self.inbox.commit(count)
            self._step()
        self._drain()
        return self.events()

    def receive_end(self) -> VmconnectError:
        """Note that the server has closed the connection, and return what that means."""
        self._check_open()
        doing = f"while {self.message} was awaited"
        try:
            # A step may make sense of what it has: the beginning of a reason, say.
            self._steps.throw(EndOfStreamError())
        except EndOfStreamError:
            return ConnectionLostError(f"the VNC server closed the connection {doing}")
        except VmconnectError as error:
            return error
        finally:
            self.close()
        raise StateError("a step of the engine went on after the end of the stream")

    def close(self) -> None:
        """Take no more bytes, and end the threads; nothing happens if that is so already."""
        self.state = State.CLOSED
        self.framebuffer.abandon()
        self.walk.close()

    def cancel(self) -> None:
        """Make a decoding that is under way in another thread raise ClosedError soon."""
        self.cancelled = True

    def events(self) -> list[Event]:
        """Return what happened and was not yet returned."""
        happened, self._events = self._events, []
        return happened

    def data_to_send(self) -> bytes:
        """Return the bytes that must go to the server now."""
        clear, self._clear = self._clear, b""
        out = bytes(self._out)
        self._out.clear()
        return clear + self.seal(out)

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as it must go to the server: encrypted, if that is how we speak.

        Another thread may do this while one takes bytes from the server; what is sealed and
        what `data_to_send` returns must go in the order of the calls.
        """
        return data if self._tunnel is None else self._tunnel.seal(data)

    def offer(self, numbers: Sequence[int]) -> None:
        """Tell the server other encodings than before, the preferred first, from now on."""
        lossy = coarse_quality(self.encodings) is not None
        self.encodings = tuple(numbers)
        self.walk.wavelet_level = wavelet_level(coarse_quality(self.encodings))
        self.send(messages.set_encodings(self.encodings))
        self.disturbances += 1
        if self.pull and lossy and coarse_quality(self.encodings) is None:
            # What was lost before is wanted now.
            self.request_update(incremental=False)

    def request_update(self, incremental: bool = True) -> None:
        """Ask for the whole screen, or for what has changed of it."""
        self.disturbances += not incremental
        size = self.framebuffer.width, self.framebuffer.height
        self.send(messages.framebuffer_update_request(incremental, 0, 0, *size))

    # What the steps use: the handshake, the logins, the encodings.

    def send(self, data: bytes) -> None:
        """Put bytes into `data_to_send`.

        Raises RfbError if they are not fetched from there while a server asks for ever more.
        """
        if len(self._out) + len(data) > MAX_UNSENT_BYTES:
            raise self.error(f"answers of more than {MAX_UNSENT_BYTES} bytes are asked for at once")
        self._out += data

    def emit(self, event: Event) -> None:
        """Tell what happened."""
        self._events.append(event)
        if self._tell is not None:
            self._tell(event)

    def enter(self, after: State, message: str) -> None:
        """Go on to a state, in which ``message`` is read first.

        Raises StateError for a transition that is not in the table.
        """
        if after not in TRANSITIONS[self.state]:
            raise StateError(f"RFB cannot go from {self.state.value} to {after.value}")
        self.state = after
        self.message = message
        if after is State.INIT:
            self._tapped = self._tap is not None
            self._show(self.inbox.peek(self.inbox.available))

    @property
    def tunnelled(self) -> bool:
        """Whether all that is said from now on is encrypted."""
        return self._tunnel is not None and self._tunnel.encrypts

    def enter_tunnel(self, tunnel: Tunnel) -> None:
        """Let all from here on go through a tunnel, also what came already and is unread.

        There may be a tunnel already, around it.
        """
        self._clear = self.data_to_send()
        tunnel.feed(self.inbox.take(self.inbox.available))
        self._tunnel = tunnel if self._tunnel is None else NestedTunnel(self._tunnel, tunnel)

    def error(self, what: str) -> RfbError:
        """Return the error that the server sent ``what``, with the message and the place."""
        return RfbError(f"{self.message}: {what}", offset=self.inbox.offset)

    def read_name(self) -> Reading[str]:
        """Read a string with its length before it, for showing."""
        (length,) = _U32.unpack((yield from self.inbox.read(_U32.size)))
        if length > MAX_NAME_BYTES:
            raise self.error(f"a name of {length} bytes")
        return printable((yield from self.inbox.read(length)))

    def area(self, rectangle: Rectangle) -> Pixels:
        """Return the words of the framebuffer in a rectangle that lies in it."""
        x, y = rectangle.x, rectangle.y
        return self.framebuffer.pixels[y : y + rectangle.height, x : x + rectangle.width]

    def corner(self) -> Pixels:
        """Return a copy of what may come of the screen's first pixel.

        QEMU sends 16 in a row, wayvnc a square of 64.
        """
        return self.framebuffer.pixels[:_CORNER, :_CORNER].copy()

    def is_corner(self, areas: Sequence[Damage]) -> bool:
        """Return whether that is all that the areas are."""
        return all(
            not area.x and not area.y and max(area.width, area.height) <= _CORNER for area in areas
        )

    def check_cancelled(self) -> None:
        """Raise ClosedError if another thread has called `cancel`."""
        if self.cancelled:
            raise ClosedError("the console was closed")

    def resize(self, width: int, height: int) -> bool:
        """Give the framebuffer the server's size and return whether it had another."""
        if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
            raise self.error(f"a screen of {width}x{height} pixels")
        before = self.framebuffer.width, self.framebuffer.height
        if (width, height) == before:
            return False
        self.framebuffer.resize(width, height)
        self.damage.take()
        if self.state is State.NORMAL and self.pull:
            if self.continuous:
                self.send(enable_continuous_updates(True, width, height))
            # rfbproto forbids this where the size is the same: it would never end.
            self.request_update(incremental=False)
        return True

    def begin(self, set_format: bool) -> None:
        """Say what we want to be sent, and ask for the screen."""
        self._first_name = self.name
        if set_format or self.layout.form != OURS:
            self.send(messages.set_pixel_format(self.layout.form))
        self.send(messages.set_encodings(self.encodings))
        if self.pull:
            self.request_update(incremental=False)

    def change_format(self, pixel_format: PixelFormat) -> None:
        """Read pixels in another format, as the server has decided, from now on."""
        try:
            self._use(pixel_format)
        except ValueError as error:
            raise self.error(str(error)) from error

    def set_colours(self, first: int, colours: NDArray[np.uint16]) -> None:
        """Let the pixels from ``first`` on mean these colours, rows of red, green, blue."""
        if self.layout.form.true_colour:
            return
        if first + len(colours) > len(self._colour_map):
            raise self.error(f"{len(colours)} colours from number {first} on")
        red, green, blue = (colours >> 8).astype(np.uint32).T
        self._colour_map[first : first + len(colours)] = red << 16 | green << 8 | blue
        self._use(self.layout.form)

    def end_update_here(self) -> None:
        """Let the update end with the present rectangle."""
        self.rectangles_left = 1

    @property
    def blue_first_cursors(self) -> bool:
        """Whether CursorWithAlpha comes as B, G, R, A against the specification, as from QEMU.

        QEMU writes its own words as they are (ui/vnc.c, vnc_cursor_define); its desktop name is
        all that gives it away.
        """
        return self._first_name.startswith("QEMU")

    def _show(self, data: memoryview) -> None:
        if self._tapped and self._tap is not None and data:
            self._tap(data)

    def _use(self, pixel_format: PixelFormat) -> None:
        self.layout = Layout.of(pixel_format, self._colour_map.copy())
        self.framebuffer.pixel_format = self.layout.drawn
        self.walk.use(self.layout)

    # The steps themselves.

    def _run(self) -> Reading[None]:
        yield from handshake(self)
        yield from self._messages()

    def _messages(self) -> Reading[None]:
        while True:
            self.message = "message type"
            (kind,) = yield from self.inbox.read(1)
            message = SERVER_MESSAGES.get(kind)
            if message is None:
                raise self.error(f"unknown message type {kind}")
            self.message = message.name
            yield from message.read(self)

    def _check_open(self) -> None:
        if self.state is State.CLOSED:
            raise StateError("the RFB connection is closed")

    def _step(self) -> None:
        """Go on as far as the bytes reach."""
        try:
            next(self._steps)
        except MemoryError as error:
            self.close()
            raise ResourceError(f"no memory for what {self.message} brings") from error
        except BaseException:
            self.close()
            raise

    def _drain(self) -> None:
        """Read all that the tunnel has let through, if we are in one."""
        if self._tunnel is not None and not self._tunnel.established:
            self._step()
        while self._tunnel is not None:
            target = self.inbox.next_buffer()
            try:
                count = self._tunnel.read_into(target)
            except BaseException:
                self.close()
                raise
            if not count:
                return
            self._show(target[:count])
            self.inbox.commit(count)
            self._step()
