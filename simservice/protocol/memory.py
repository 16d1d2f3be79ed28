"""What messages of hundreds of kilobytes need of the C library's allocator."""

from __future__ import annotations

from functools import cache

KEPT_BYTES = 31 * 2**20
"""A little less than glibc's bound (DEFAULT_MMAP_THRESHOLD_MAX, 32 MiB)."""


@cache
def keep_freed_memory() -> None:
    """From now on memory that is freed stays with the process, up to twice KEPT_BYTES, for the next message.

    By itself glibc gives it back with each message of that size and takes it again, page by page: 64 pictures of
    64 x 64 x 3 took 1.4 ms through HAProxy instead of .7. It learns from the largest block that was ever freed, which
    is why this frees one; the block is never touched, and other allocators are told nothing by it.
    """
    bytes(KEPT_BYTES)
