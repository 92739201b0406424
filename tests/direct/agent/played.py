"""Agents that are played: what a real one does only by bad luck, or a hostile guest on purpose."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vmconnect.direct.agent import StreamChannel
from vmconnect.streams import SocketStream

__all__ = ["Played", "played"]


class Played:
    """The guest's end of a channel, with what a script needs."""

    def __init__(self, end: socket.socket):
        self.socket = end
        self._lines = end.makefile("rb")
        self.requests: list[Any] = []

    def request(self) -> Any:
        """Read a request."""
        line = self._lines.readline()
        if not line:
            raise EOFError
        content = json.loads(line.lstrip(b"\xff"))
        self.requests.append(content)
        return content

    def sync(self) -> int:
        """Read a request to synchronise, and return its number."""
        content = self.request()
        assert content["execute"] == "guest-sync-delimited"
        return int(content["arguments"]["id"])

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, content: Any) -> None:
        self.send(json.dumps(content).encode() + b"\n")

    def synced(self, number: int) -> None:
        # qemu-ga takes the mark before a request for JSON, and says that it is none.
        self.reply({"error": {"class": "GenericError", "desc": "JSON parse error, stray"}})
        self.send(b"\xff")
        self.reply({"return": number})

    def serve(self) -> None:
        """Synchronise whenever it is asked for, and answer the rest with what was asked."""
        while True:
            content = self.request()
            if content["execute"] == "guest-sync-delimited":
                self.synced(content["arguments"]["id"])
            else:
                self.reply({"return": content["execute"]})


@contextlib.contextmanager
def played(script: Callable[[Played], None]) -> Iterator[StreamChannel]:
    """Give a channel, at whose other end ``script`` plays the agent."""
    ours, theirs = socket.socketpair()
    failed: list[BaseException] = []

    def run() -> None:
        agent = Played(theirs)
        try:
            script(agent)
        except (EOFError, ConnectionError):
            pass
        except BaseException as error:  # noqa: BLE001 (raised in the test's thread)
            failed.append(error)
        finally:
            agent._lines.close()
            theirs.close()

    thread = threading.Thread(target=run)
    thread.start()
    channel = StreamChannel(SocketStream(ours, "played"), "web01")
    try:
        yield channel
    finally:
        channel.close()
        thread.join()
    if failed:
        raise failed[0]
