"""asyncvnc (PyPI): Raw and Zlib; CopyRect and changes of size it does not take."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import asyncvnc

from bench.clients.meter import Meter


async def run() -> None:
    """Read until the server hangs up."""
    address, _, picture = sys.argv[1:]

    async def dial(_host: str, _port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(address)

    meter = Meter()
    async with asyncvnc.connect("", opener=dial) as client:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                client.video.refresh()
                if await client.read() is asyncvnc.UpdateType.VIDEO:
                    meter.update()
        meter.stop()
        rgba = client.video.as_rgba()
    meter.report(picture, rgba[:, :, :3].tobytes())


if __name__ == "__main__":
    asyncio.run(run())
