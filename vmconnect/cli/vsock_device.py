"""``vmconnect vsock-device``: a user-space vsock device for QEMU."""

from __future__ import annotations

import argparse

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Start it before QEMU, and QEMU with -object memory-backend-memfd,id=m,size=SIZE,share=on "
        "-machine memory-backend=m -chardev socket,id=vs,path=VU "
        "-device vhost-user-vsock-pci,chardev=vs"
    )
    parser.add_argument("--socket", metavar="VU", required=True, help="vhost-user socket for QEMU")
    parser.add_argument("--uds", metavar="PATH", required=True, help="hybrid vsock socket")
    parser.add_argument("--cid", metavar="N", type=int, required=True, help="the guest's CID")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code."""
    from vmconnect.vsock.command import serve

    return serve(arguments.socket, arguments.uds, arguments.cid)
