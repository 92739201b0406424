"""TLS within RFB: the tunnel of VeNCrypt, and security type 18, which is TLS and a login.

Anonymous TLS, the TLS* kinds, keeps out who listens but not who steps in between: nobody proves
anything. With a certificate, the X509* kinds, the server does, to `vmconnect.vnc.policy.Policy`.
Where the number does not tell which of them comes, the server decides, and the policy judges.
"""

from __future__ import annotations

import enum
import ssl
import threading
from typing import TYPE_CHECKING, cast

from vmconnect.errors import RfbError, TrustError
from vmconnect.streams.certificates import load_certificates
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.policy import Policy, ServerKey

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["Proof", "TlsTunnel", "secure"]

_BUFFER_BYTES = 64 * 1024


class Proof(enum.Enum):
    """What a server may show in the handshake."""

    NONE = enum.auto()
    CERTIFICATE = enum.auto()
    EITHER = enum.auto()


class TlsTunnel:
    """A TLS connection, seen from the client; see `vmconnect.vnc.tunnel.Tunnel`.

    ``proof`` says whether the server has to show a certificate; ``proved``, whether it did.
    """

    encrypts = True

    def __init__(self, policy: Policy, proof: Proof):
        self.established = False
        self.proved = False
        self._policy = policy
        self._proof = proof
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        # OpenSSL lets nobody read while another writes.
        self._lock = threading.Lock()
        context = _context(policy, proof)
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=policy.server_name
        )

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is over.

        Raises TrustError if the server is not who it should be, RfbError if there is no TLS.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise TrustError(
                f"the VNC server's certificate is not good: {error.verify_message}",
                hint=f"its CA should be in {self._policy.authority}",
            ) from error
        except ssl.SSLError as error:
            raise self._broken(error) from error
        certificate = self._tls.getpeercert(binary_form=True)
        if certificate is not None:
            self._check(certificate)
        elif self._proof is Proof.CERTIFICATE or self._policy.verified or self._policy.authority:
            raise TrustError("the VNC server shows no certificate")
        self.established = True
        return True

    def next_buffer(self) -> memoryview:
        """Return where the next bytes from the server may be written, for `feed`."""
        return self._buffer

    def feed(self, data: memoryview) -> None:
        """Take bytes from the server."""
        self._incoming.write(data)

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first.

        Raises RfbError for what is not properly encrypted.
        """
        if not self.established:
            return 0
        try:
            with self._lock:
                return cast("int", self._tls.read(len(target), cast("bytearray", target)))
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            return 0  # The end is told by the stream.
        except ssl.SSLError as error:
            raise self._broken(error) from error

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as it goes to the server, after what TLS itself has to send."""
        try:
            with self._lock:
                if data:
                    self._tls.write(data)
                return self._outgoing.read()
        except ssl.SSLError as error:
            raise self._broken(error) from error

    def _check(self, certificate: bytes) -> None:
        self.proved = True
        if self._policy.authority is not None:
            return  # OpenSSL has checked it.
        if self._policy.check_key is None:
            raise TrustError(
                "nobody can tell whether the VNC server's certificate is its own",
                hint="name the CA that made it out, or give the console a way to check it",
            )
        self._policy.check_key(ServerKey("x509", certificate))

    @staticmethod
    def _broken(error: ssl.SSLError) -> RfbError:
        what = (error.reason or "it breaks off").replace("_", " ").lower()
        return RfbError(f"TLS with the VNC server fails: {what}")


def _context(policy: Policy, proof: Proof) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if proof is not Proof.CERTIFICATE:
        # TLS 1.3 has no anonymous key exchange, and OpenSSL's levels of security no place for it.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        # GnuTLS takes the first that it knows, also if it has no certificate for it.
        certified = ":HIGH" if proof is Proof.EITHER else ""
        context.set_ciphers(f"aNULL{certified}:!eNULL:!RC4:!3DES:@SECLEVEL=0")
    if proof is not Proof.NONE:
        _certify(context, policy)
    return context


def _certify(context: ssl.SSLContext, policy: Policy) -> None:
    """Demand the certificate that the policy wants, and show ours."""
    if policy.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = policy.server_name is not None
    load_certificates(context, policy.authority, policy.certificate, policy.private_key)


def secure(engine: Engine, proof: Proof) -> Reading[None]:
    """Put all that follows through TLS, as soon as the server has shaken hands."""
    tunnel = TlsTunnel(engine.policy, proof)
    engine.message = "TLS handshake"
    engine.enter_tunnel(tunnel)
    while not tunnel.handshake():
        yield
    engine.proved = tunnel.proved
