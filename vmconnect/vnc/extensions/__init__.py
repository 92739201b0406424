"""Messages beyond RFC 6143, which a server sends when it was told that we read them.

One extension a file: its messages, what it makes of them, and the number that offers it. Those
that come as rectangles are among `vmconnect.vnc.encodings`.

`EXTENSIONS`
    the server's messages by their number
`OFFERS`
    the numbers that offer them, for SetEncodings
"""

from __future__ import annotations

from vmconnect.vnc.extensions.audio import AUDIO_MESSAGE
from vmconnect.vnc.extensions.base import ServerMessage
from vmconnect.vnc.extensions.clipboard import EXTENDED_CLIPBOARD, Clipboard
from vmconnect.vnc.extensions.continuous_updates import CONTINUOUS_UPDATES, END_OF_UPDATES
from vmconnect.vnc.extensions.fence import FENCE, FENCE_MESSAGE
from vmconnect.vnc.extensions.xvp import XVP, XVP_MESSAGE

__all__ = ["EXTENSIONS", "OFFERS", "Clipboard", "ServerMessage"]

OFFERS = (FENCE, CONTINUOUS_UPDATES, EXTENDED_CLIPBOARD, XVP)

EXTENSIONS: dict[int, ServerMessage] = {
    message.number: message
    for message in (END_OF_UPDATES, FENCE_MESSAGE, XVP_MESSAGE, AUDIO_MESSAGE)
}
