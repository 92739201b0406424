"""What a domain's XML tells (https://libvirt.org/formatdomain.html)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.errors import HypervisorError
from vmconnect.hypervisor.base import Drive
from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.streams import SSH_PORT, Endpoint, Tcp, Unix, Vsock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

__all__ = ["Domain", "element", "read_domain", "text"]

# A domain's XML is tens of kilobytes; an RPC message of libvirt's at most 32 MiB.
_MAX_XML = 4 << 20
_AGENT = "org.qemu.guest_agent.0"
_LOOPBACK = {"", "127.0.0.1", "::1", "localhost"}
_ANY = {"0.0.0.0", "::"}  # noqa: S104 (not bound here)
_CIDS = range(3, 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Domain:
    """The endpoints and drives of a domain, as its own host sees them.

    Of a daemon that is reached by other means than ssh, as far as they can be reached from here.

    ``agent_channel``: whether it has a guest agent's channel, wherever the domain is;
    ``clipboard``: whether its console shares the guest's.
    """

    console: Endpoint | None = None
    graphics: int | None = None  # the VNC display's place among the graphics, for openGraphicsFD
    guest: Endpoint | None = None
    agent: Endpoint | None = None
    agent_channel: bool = False
    clipboard: bool = False
    serial: Endpoint | Path | None = None
    drives: tuple[Drive, ...] = ()


def element(xml: str) -> Element:
    """Parse XML of libvirt's; raises HypervisorError if it is none, or too long."""
    import xml.etree.ElementTree as ET

    # libvirt writes no document type; without one there are no entities to blow up.
    if len(xml) > _MAX_XML or "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise HypervisorError("libvirt gave XML that is none of its own")
    try:
        return ET.fromstring(xml)  # noqa: S314 (see above)
    except (ET.ParseError, ValueError) as error:
        raise HypervisorError(f"libvirt gave XML that cannot be read: {error}") from error


def text(node: Element) -> str:
    """Return an element as XML."""
    import xml.etree.ElementTree as ET

    return ET.tostring(node, encoding="unicode")


def read_domain(xml: str, address: LibvirtAddress) -> Domain:
    """Read a domain's live XML.

    What listens only on its host is None if that is another one that ssh does not lead to.
    """
    elsewhere = address.remote and address.ssh_host is None
    devices = element(xml).find("devices")
    if devices is None:
        return Domain()
    graphics = devices.findall("graphics")
    vnc = next((n for n, each in enumerate(graphics) if each.get("type") == "vnc"), None)
    return Domain(
        console=None
        if vnc is None
        else _listener(graphics[vnc], address.hostname if elsewhere else None),
        graphics=vnc,
        guest=None if elsewhere else _vsock(devices),
        agent=None if elsewhere else _agent(devices),
        agent_channel=_agent_channel(devices) is not None,
        clipboard=devices.find("channel[@type='qemu-vdagent']") is not None,
        serial=None if elsewhere else _serial(devices),
        drives=tuple(_drives(devices)),
    )


def _listener(graphics: Element, elsewhere: str | None) -> Endpoint | None:
    """Return where VNC listens, on this host or on the one called ``elsewhere``."""
    for listen in (*graphics.findall("listen"), graphics):
        if socket := listen.get("socket"):
            return None if elsewhere or not socket.startswith("/") else Unix(socket)
    port = _number(graphics.get("port"), range(1, 65536))
    if port is None:
        return None  # -1: not running, or it listens nowhere
    hosts = [listen.get("address") for listen in graphics.findall("listen")]
    host = next(filter(None, hosts), None) or graphics.get("listen") or "127.0.0.1"
    if elsewhere:
        if host in _LOOPBACK:
            return None
        return Tcp(elsewhere if host in _ANY else host, port)
    return Tcp({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104


def _vsock(devices: Element) -> Endpoint | None:
    cid = devices.find("vsock/cid")
    number = None if cid is None else _number(cid.get("address"), _CIDS)
    return None if number is None else Vsock(number, SSH_PORT)


def _agent_channel(devices: Element) -> Element | None:
    for channel in devices.findall("channel"):
        target = channel.find("target")
        if target is not None and target.get("name") == _AGENT:
            return channel
    return None


def _agent(devices: Element) -> Endpoint | None:
    channel = _agent_channel(devices)
    source = None if channel is None or channel.get("type") != "unix" else channel.find("source")
    path = "" if source is None else source.get("path") or ""
    return Unix(path) if path.startswith("/") else None


def _serial(devices: Element) -> Endpoint | Path | None:
    for kind in ("serial", "console"):
        for device in devices.findall(kind):
            source = device.find("source")
            if source is None:
                continue
            path = source.get("path") or ""
            port = _number(source.get("service"), range(1, 65536))
            match device.get("type"):
                case "pty" | "file" if path.startswith("/"):
                    return Path(path)
                case "unix" if path.startswith("/"):
                    return Unix(path)
                case "tcp" if source.get("mode") == "bind" and port is not None:
                    return Tcp(source.get("host") or "127.0.0.1", port)
    return None


def _drives(devices: Element) -> Iterator[Drive]:
    for disk in devices.findall("disk"):
        target = disk.find("target")
        if disk.get("device") not in {"cdrom", "floppy"} or target is None:
            continue
        source = disk.find("source")
        medium = None if source is None else source.get("file") or source.get("dev")
        yield Drive(target.get("dev") or "", medium)


def _number(text: str | None, allowed: range) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return int(text) if int(text) in allowed else None
