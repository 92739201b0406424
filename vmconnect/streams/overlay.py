"""Endpoints over other endpoints: TLS and WebSocket."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from vmconnect.errors import TargetError
from vmconnect.streams.endpoint import Endpoint, Tcp

__all__ = ["Tls", "WebSocket", "certified"]


@dataclass(frozen=True, slots=True)
class Tls(Endpoint):
    """TLS over another endpoint, which must prove to be ``server_name``.

    ``authority`` are the CAs that may say so, instead of the system's; ``certificate`` and
    ``private_key`` are ours, for servers that want one. All are PEM files.
    """

    over: Endpoint
    server_name: str
    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    private = True

    @property
    def local(self) -> bool:
        """Whether what it goes over is on this host."""
        return self.over.local

    @property
    def hostname(self) -> str:
        """The name that the server proved."""
        return self.server_name

    def __str__(self) -> str:
        return f"tls+{self.over}"


@dataclass(frozen=True, slots=True)
class WebSocket(Endpoint):
    """A WebSocket over another endpoint (RFC 6455), made from a URL by `at`.

    ``host`` is what goes into the request's Host, ``resource`` the path and the query. Where
    those, or ``headers``, hold something secret (a token), no text of the endpoint shows it.
    """

    over: Endpoint
    host: str
    resource: str = field(default="/", repr=False)
    subprotocols: tuple[str, ...] = ("binary",)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        headers = [part for header in self.headers for part in header]
        for text in (self.host, self.resource, *self.subprotocols, *headers):
            if not text.isascii() or not text.isprintable():
                raise TargetError(
                    "a WebSocket's request has characters that do not belong there",
                    hint="anything but ASCII is written as %XX",
                )
        if not self.resource.startswith("/") or set(self.host + self.resource) & set(" #"):
            raise TargetError(
                "a WebSocket's address has characters that do not belong there",
                hint="a blank is written as %20, and what follows a # is the browser's own",
            )

    @classmethod
    def at(cls, url: str) -> Self:
        """Read ``ws://HOST[:PORT][/PATH][?QUERY]``, or ``wss://...``; raises TargetError."""
        scheme, _, rest = url.partition("://")
        hint = "ws://HOST:PORT/PATH or wss://HOST/PATH"
        if scheme not in {"ws", "wss"} or not url.isprintable():
            raise TargetError("this is no WebSocket's address", hint=hint)
        end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
        address, resource = rest[:end], rest[end:]
        if "@" in address:
            raise TargetError(
                "a password or user has no place in front of a host", hint="it is not supported"
            )
        tcp = Tcp.read(address, 443 if scheme == "wss" else 80)
        return cls(
            Tls(tcp, tcp.host) if scheme == "wss" else tcp,
            address,
            resource if resource.startswith("/") else f"/{resource}",
        )

    @property
    def private(self) -> bool:
        """Whether what it goes over is private."""
        return self.over.private

    @property
    def local(self) -> bool:
        """Whether what it goes over is on this host."""
        return self.over.local

    @property
    def hostname(self) -> str | None:
        """The host, as what it goes over knows it."""
        return self.over.hostname

    def __str__(self) -> str:
        scheme = "wss" if isinstance(self.over, Tls) else "ws"
        return f"{scheme}://{self.host}{self.resource.partition('?')[0]}"


def certified(
    endpoint: Endpoint, authority: Path | None, certificate: Path | None, private_key: Path | None
) -> Endpoint:
    """Return ``endpoint`` whose TLS, if there is any, uses these certificates where given."""
    match endpoint:
        case WebSocket(over=over):
            return replace(endpoint, over=certified(over, authority, certificate, private_key))
        case Tls():
            return replace(
                endpoint,
                authority=authority or endpoint.authority,
                certificate=certificate or endpoint.certificate,
                private_key=private_key or endpoint.private_key,
            )
        case _:
            return endpoint
