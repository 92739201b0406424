"""TLS over any stream (RFC 8446), by OpenSSL."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast

from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    TargetError,
    TlsError,
    TrustError,
)
from vmconnect.streams.certificates import load_certificates

if TYPE_CHECKING:
    from vmconnect.streams.overlay import Tls

__all__ = ["TlsLayer"]

_READ_BYTES = 1 << 14


class TlsLayer:
    """The client's side of TLS; see `vmconnect.streams.layered.Layer`.

    Closing one direction is TLS's own: a ``close_notify``, after which the other goes on.
    """

    def __init__(self, endpoint: Tls):
        self.finished = False
        self._endpoint = endpoint
        self._name = str(endpoint.over)
        self._established = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # What came before we closed our direction, and was not asked for until then.
        self._kept = bytearray()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_certificates(context, endpoint.authority, endpoint.certificate, endpoint.private_key)
        if endpoint.authority is None:
            context.load_default_certs()
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=endpoint.server_name
            )
        except ValueError as error:
            raise TargetError(
                f"no certificate is made out to {endpoint.server_name!r}", hint="a host's name"
            ) from error

    def handshake(self) -> bool:
        """Go on with the handshake; raises TrustError for a bad certificate, TlsError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            where = self._endpoint.authority or "the system's list of CAs"
            raise TrustError(
                f"the certificate of {self._name} is not good: {error.verify_message}",
                hint=f"its CA should be in {where}, and its name {self._endpoint.server_name}",
            ) from error
        except ssl.SSLError as error:
            raise self._broken(error) from error
        self._established = True
        return True

    def feed(self, data: memoryview) -> None:
        """Take bytes from the wire."""
        self._incoming.write(data)

    def feed_end(self) -> None:
        """Take the wire's end; without a close_notify it may be somebody else's doing."""
        if not self._established:
            raise ConnectError(
                f"{self._name} hung up instead of shaking hands", hint="does it speak TLS?"
            )
        if not self.finished:
            raise ConnectionLostError(f"the connection to {self._name} broke off")

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first."""
        if self._kept:
            count = min(len(target), len(self._kept))
            target[:count] = self._kept[:count]
            del self._kept[:count]
            return count
        count = 0
        try:
            count = cast("int", self._tls.read(len(target), cast("bytearray", target)))
            self.finished = not count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the same, once we have closed our direction
            self.finished = True
        except ssl.SSLError as error:
            raise self._broken(error) from error
        return count

    def seal(self, data: memoryview) -> bytes:
        """Return ``data`` as it goes on the wire."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise self._broken(error) from error
        return self._outgoing.read()

    def owed(self) -> bytes:
        """Return what TLS itself has to send, and forget it."""
        return self._outgoing.read()

    def finish(self) -> bytes:
        """Return the close_notify that ends our direction."""
        if self._established:
            self._keep()
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # It waits for the other direction's, and need not.
            except ssl.SSLError as error:
                raise self._broken(error) from error
        return self._outgoing.read()

    def _keep(self) -> None:
        """Read all that is here: OpenSSL takes it ill to find data while it closes."""
        buffer = bytearray(_READ_BYTES)
        kept = bytearray()
        while count := self.read_into(memoryview(buffer)):
            kept += buffer[:count]
        self._kept = kept

    def _broken(self, error: ssl.SSLError) -> TlsError:
        what = (error.reason or "it breaks off").replace("_", " ").lower()
        return TlsError(f"TLS with {self._name} fails: {what}")
