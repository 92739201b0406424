"""The guest's memory, as the front end shares it: files mapped here, addresses checked.

Nothing outside this module turns an address into bytes. Two kinds of address name the same bytes:
guest-physical ones (in descriptors, the guest's word) and the front end's own (for the rings).
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Sequence

from vmconnect.errors import VhostUserError, VsockError
from vmconnect.vsock.message import Region

__all__ = ["GuestMemory"]

_ADDRESS_END = 1 << 64


class GuestMemory:
    """Guest memory, mapped from the descriptors of a memory table.

    The views that it gives keep the mapping alive: dropping the memory and all its views unmaps
    it. A front end that truncates a file that it shares kills this process (SIGBUS); QEMU seals
    its memfd against that, and a guest cannot do it.
    """

    def __init__(self, regions: Sequence[Region], fds: Sequence[int]):
        """Map the regions; the descriptors stay the caller's.

        Raises VhostUserError if a region cannot be mapped, or overlaps another.
        """
        if len(regions) != len(fds):
            raise VhostUserError(f"{len(regions)} memory regions with {len(fds)} descriptors")
        mapped = [(region, _map(region, fd)) for region, fd in zip(regions, fds, strict=True)]
        mapped.sort(key=lambda pair: pair[0].guest_address)
        self._guest = [
            (region.guest_address, region.guest_address + region.size, view)
            for region, view in mapped
        ]
        self._user = [
            (region.user_address, region.user_address + region.size, view)
            for region, view in mapped
        ]
        for before, after in zip(self._guest, self._guest[1:], strict=False):
            if before[1] > after[0]:
                raise VhostUserError(f"memory regions overlap at guest address {after[0]:#x}")
        self._starts = [start for start, _, _ in self._guest]
        self._last = self._guest[0] if self._guest else (0, 0, memoryview(b""))

    def collect(self, views: list[memoryview], address: int, length: int) -> None:
        """Append the bytes at a guest-physical address to ``views``.

        One view nearly always, more if they straddle regions that touch. Raises VsockError if
        any byte is not in the guest's memory.
        """
        # Buffers come from the same region again and again.
        start, end, view = self._last
        if start <= address and address + length <= end:
            offset = address - start
            views.append(view[offset : offset + length])
            return
        while length:
            place = bisect.bisect_right(self._starts, address) - 1
            if place < 0 or self._guest[place][1] <= address:
                raise VsockError(f"{length} bytes at {address:#x} are not in the guest's memory")
            start, end, view = self._last = self._guest[place]
            part = min(length, end - address)
            offset = address - start
            views.append(view[offset : offset + part])
            address += part
            length -= part

    def user(self, address: int, length: int) -> memoryview:
        """Return the bytes at one of the front end's own addresses.

        Raises VhostUserError if they are not in one region.
        """
        for start, end, view in self._user:
            if start <= address and address + length <= end:
                offset = address - start
                return view[offset : offset + length]
        raise VhostUserError(f"{length} bytes at {address:#x} are not in a shared memory region")


def _map(region: Region, fd: int) -> memoryview:
    if not region.size:
        raise VhostUserError("a memory region of no bytes")
    highest = max(region.guest_address, region.user_address)
    if highest + region.size > _ADDRESS_END:
        raise VhostUserError("a memory region past the last address")
    # A mapping begins at a page; the region may begin inside one.
    skipped = region.file_offset % mmap.ALLOCATIONGRANULARITY
    length = skipped + region.size
    try:
        # mmap itself asks only that the end be in the file when the length is known to fit.
        if region.file_offset + region.size > os.fstat(fd).st_size:
            raise VhostUserError("a memory region past the end of its file")
        mapping = mmap.mmap(fd, length, offset=region.file_offset - skipped)
    except (OSError, ValueError, OverflowError) as error:
        raise VhostUserError(
            f"cannot map {region.size} bytes of guest memory: {error}",
            hint="QEMU needs -object memory-backend-memfd,id=m,size=SIZE,share=on",
        ) from error
    return memoryview(mapping)[skipped:]
