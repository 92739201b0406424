"""A console's clipboard: the text that the machine gave last, and the text that it is given."""

from __future__ import annotations

from vmconnect.errors import UnsupportedError
from vmconnect.vnc import messages
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event, ServerCutText
from vmconnect.vnc.sender import Sender

__all__ = ["ConsoleClipboard"]

_MAX_CUT_TEXT_BYTES = 1024 * 1024
"""What QEMU takes; it closes the connection for more (ui/vnc.c, protocol_client_msg)."""


class ConsoleClipboard:
    """Exchanges text with a machine's clipboard; for any thread."""

    def __init__(self, machine: str, engine: Engine, send: Sender):
        self._machine = machine
        self._engine = engine
        self._send = send
        self._text: str | None = None

    @property
    def text(self) -> str | None:
        """The text that the machine has given last; None before it gave one."""
        return self._text

    @property
    def unicode(self) -> bool:
        """Whether the server takes every character, not only Latin-1's."""
        return bool(self._engine.clipboard.server)

    def put(self, text: str) -> None:
        """Give the machine's clipboard a text.

        Raises UnsupportedError for characters past Latin-1 where the server does not take them,
        and for more than 1 MiB.
        """
        if self.unicode and len(text.encode(errors="replace")) <= _MAX_CUT_TEXT_BYTES:
            self._send(self._engine.clipboard.cut(text), "clipboard")
            return
        try:
            data = text.replace("\r\n", "\n").encode("latin-1")
        except UnicodeEncodeError as error:
            raise UnsupportedError(
                f"the clipboard takes no {text[error.start]!r}, only Latin-1",
                machine=self._machine,
            ) from error
        if len(data) > _MAX_CUT_TEXT_BYTES:
            raise UnsupportedError(
                f"the clipboard takes no {len(data)} bytes, only {_MAX_CUT_TEXT_BYTES}",
                machine=self._machine,
            )
        self._send(messages.client_cut_text(data), "clipboard")

    def move(self, engine: Engine) -> None:
        """Speak to another engine from now on; what the machine gave stays."""
        self._engine = engine

    def take(self, event: Event) -> None:
        """Note what the server has told."""
        if isinstance(event, ServerCutText):
            self._text = event.text
