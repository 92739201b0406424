"""HTTP/1.1 over a stream (RFC 9112), as much of it as two hypervisors speak.

Ours, since http.client brings the email package and TLS along (24 ms), and reads a line at a time
with no deadline over all of them; both servers send one answer with a Content-Length, and nothing
else of HTTP is taken from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import HypervisorError, RestError
from vmconnect.streams import Endpoint, Stream, dial

__all__ = ["Response", "ResponseParser", "RestClient"]

MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 4 << 20
_READ_BYTES = 1 << 16
_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer: its status code and its body."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the server did as it was told."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; raises RestError if it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RestError(f"the answer is no JSON: {self.body[:40]!r}") from error
        if not isinstance(value, dict):
            raise RestError(f"the answer is no JSON object: {self.body[:40]!r}")
        return value

    def reason(self) -> str:
        """Return what the server says of its refusal: Firecracker's fault_message, or the body."""
        text = self.body.decode(errors="replace").strip()
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and isinstance(value.get("fault_message"), str):
            text = value["fault_message"]
        elif isinstance(value, list):
            text = ": ".join(str(each) for each in value)
        return " ".join(text.split())[:_REASON_CHARACTERS] or f"status {self.status}"


class ResponseParser:
    """One response out of bytes; no I/O."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._status = 0
        self._length: int | None = None  # None: to the end of the connection

    def receive(self, data: bytes) -> Response | None:
        """Return the response once ``data`` completes it; raises RestError on what is none."""
        self._data += data
        while not self._status:
            end = self._data.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD_BYTES:
                if len(self._data) > MAX_HEAD_BYTES:
                    raise RestError(f"headers of more than {MAX_HEAD_BYTES} bytes")
                return None
            head = bytes(self._data[:end])
            del self._data[: end + 4]
            self._read_head(head)
        if len(self._data) > MAX_BODY_BYTES:
            raise RestError(f"a body of more than {MAX_BODY_BYTES} bytes")
        if self._length is None or len(self._data) < self._length:
            return None
        return Response(self._status, bytes(self._data[: self._length]))

    def receive_end(self) -> Response:
        """Return the response that the connection's end completes; raises RestError."""
        if not self._status or self._length is not None:
            raise RestError("the connection ended within the answer")
        return Response(self._status, bytes(self._data))

    def _read_head(self, head: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        version, _, rest = line.partition(b" ")
        code = rest[:3]
        if version not in {b"HTTP/1.1", b"HTTP/1.0"} or len(code) != 3 or not code.isdigit():
            raise RestError(f"no HTTP answer: {line[:40]!r}")
        status = int(code)
        if not 100 <= status < 600:
            raise RestError(f"no status of HTTP: {status}")
        if status < 200:
            return  # 100 Continue: the answer is still to come.
        length: int | None = None
        for field in fields:
            name, colon, value = field.partition(b":")
            if not colon:
                raise RestError(f"no header: {field[:40]!r}")
            match name.lower():
                case b"transfer-encoding":
                    raise RestError("a transfer coding, which no hypervisor uses")
                case b"content-length":
                    digits = value.strip()
                    if not digits.isdigit() or len(digits) > 10:
                        raise RestError(f"no length: {digits[:40]!r}")
                    if length not in {None, int(digits)}:
                        raise RestError("two lengths")
                    length = int(digits)
                    if length > MAX_BODY_BYTES:
                        raise RestError(f"a body of {length} bytes")
        self._status = status
        self._length = 0 if status in {204, 304} else length


class RestClient:
    """The API server at an endpoint; a connection for every request."""

    def __init__(self, endpoint: Endpoint, machine: str):
        self._endpoint = endpoint
        self._machine = machine

    def get(self, resource: str, deadline: Deadline) -> Response:
        """GET; any status. Raises ConnectError, ConnectionLostError, DeadlineError, RestError."""
        return self._ask("GET", resource, None, deadline)

    def send(
        self, method: str, resource: str, body: dict[str, Any] | None, deadline: Deadline
    ) -> None:
        """PUT or PATCH; raises as `get` does, and HypervisorError if the server refuses."""
        response = self._ask(method, resource, body, deadline)
        if not response.ok:
            raise self.refused(resource, response)

    def refused(self, resource: str, response: Response) -> HypervisorError:
        """Return the error of a refusal."""
        return HypervisorError(
            f"{resource} was refused: {response.reason()}", machine=self._machine
        )

    def _ask(
        self, method: str, resource: str, body: dict[str, Any] | None, deadline: Deadline
    ) -> Response:
        content = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {resource} HTTP/1.1", "Host: localhost", "Accept: application/json"]
        if method != "GET":
            head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        request = "\r\n".join([*head, "", ""]).encode("ascii") + content
        stream = dial(self._endpoint, deadline)
        try:
            stream.settimeout(deadline.remaining())
            with deadline.waking(stream.close):
                stream.sendall(request)
                return self._read(stream, deadline)
        except RestError as error:
            raise error.with_machine(self._machine) from error.__cause__
        finally:
            stream.close()

    def _read(self, stream: Stream, deadline: Deadline) -> Response:
        parser = ResponseParser()
        while True:
            deadline.check(f"waiting for {self._endpoint}")
            stream.settimeout(deadline.remaining())
            data = stream.recv(_READ_BYTES)
            if not data:
                return parser.receive_end()
            if response := parser.receive(data):
                return response
