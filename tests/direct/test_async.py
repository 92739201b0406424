"""Guests from asyncio, as docs/direct.md has it."""

from __future__ import annotations

import asyncio

import pytest

import vmconnect
from vmconnect.demo import DemoMachine
from vmconnect.direct import Result

pytestmark = pytest.mark.guest

WAIT = 60.0


def test_two_commands_at_once_in_one_guest(demo_machine: DemoMachine) -> None:
    async def main() -> tuple[Result, Result]:
        with vmconnect.connect(demo_machine.name) as session:
            guest = await asyncio.to_thread(session.guest, timeout=WAIT, wait=True)
            await asyncio.to_thread(guest.run, ["mkfifo", "/tmp/there", "/tmp/back"])
            try:
                # Each waits for the other: one after the other neither would end.
                return await asyncio.gather(
                    asyncio.to_thread(
                        guest.run, "echo go >/tmp/there; cat /tmp/back", timeout=WAIT
                    ),
                    asyncio.to_thread(
                        guest.run, "cat /tmp/there; echo went >/tmp/back", timeout=WAIT
                    ),
                )
            finally:
                await asyncio.to_thread(guest.run, ["rm", "/tmp/there", "/tmp/back"])

    first, second = asyncio.run(main())
    assert (first.stdout, second.stdout) == (b"went\n", b"go\n")


def test_the_loop_goes_on_meanwhile(demo_machine: DemoMachine) -> None:
    async def main() -> Result:
        with vmconnect.connect(demo_machine.name) as session:
            guest = await asyncio.to_thread(session.guest, timeout=WAIT, wait=True)
            loop, started = asyncio.get_running_loop(), asyncio.Event()
            process = await asyncio.to_thread(guest.start, ["cat"])
            waiting = asyncio.create_task(asyncio.to_thread(process.wait, WAIT))
            loop.call_soon(started.set)
            await asyncio.wait_for(started.wait(), WAIT)
            assert not waiting.done()
            process.end_input()
            return await waiting

    assert asyncio.run(main()).ok
