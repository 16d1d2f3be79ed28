"""A TCP relay that misbehaves on command, as a dying proxy, a pulled cable or a thin line would. Knows no protocol."""

import asyncio
import contextlib
import math
import socket
import struct
import threading

UP, DOWN = "up", "down"  # from the client to the target, and back
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel sends RST instead of FIN


class Relay:
    """Listens at `address` and relays each connection to `target` ("host:port" or "unix:/path") until close().

    Settings may be changed while it runs and hold for what passes from then on:
    - delay_s: every piece comes so much later;
    - bytes_per_s: a cap in each direction;
    - piece_bytes: what is carried is dripped in pieces of at most this size.
    """

    def __init__(self, target):
        self.delay_s = 0.0
        self.bytes_per_s = math.inf
        self.piece_bytes = 65536
        self.connections = 0
        self.refused = 0
        self.drops = 0  # cuts that hit a connection
        self.carried = {UP: 0, DOWN: 0}
        self.turns = 0  # how often what came up began after something had come down: round trips
        self._target = target
        self._last = DOWN
        self._fuse = {UP: None, DOWN: None}
        self._open = {}
        self._refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._carrying = asyncio.Event()
        self._carrying.set()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    # ---- what may go wrong -----------------------------------------------------------------------------------------

    def cut(self, *, reset=False):
        """Ends every connection there is, in order or by a reset; returns how many."""
        return self._call(lambda: self._end_all(reset))

    def cut_after(self, count, direction, *, reset=False):
        """Ends every connection as soon as `count` more bytes have passed in that direction, in mid-message or not."""
        self._call(lambda: self._fuse.__setitem__(direction, (count, reset)))

    @property
    def armed(self):
        """Whether a cut_after() waits for its bytes."""
        return any(fuse is not None for fuse in self._fuse.values())

    def freeze(self):
        """From now on nothing arrives and nothing is closed: half-open connections."""
        self._call(self._carrying.clear)

    def thaw(self):
        """Carries again, what was held back first."""
        self._call(self._carrying.set)

    def refuse(self, refusing=True):
        """New connections are reset at once."""
        self._call(lambda: setattr(self, "_refusing", refusing))

    def close(self):
        """Ends the relay and its connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._accepting.cancel)
            self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    # ---- its loop --------------------------------------------------------------------------------------------------

    def _call(self, work):
        """Runs `work` in the relay's loop and returns what it returns."""

        async def call():
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._accepting = self._loop.create_task(self._accept())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)
        self._listener.close()
        self._end_all(reset=False)
        if self._open:
            self._loop.run_until_complete(asyncio.wait(list(self._open)))
        self._loop.close()

    async def _accept(self):
        while True:
            near, _ = await self._loop.sock_accept(self._listener)
            if self._refusing:
                self.refused += 1
                _close(near, reset=True)
                continue
            task = self._loop.create_task(self._carry(near))
            self._open[task] = False
            task.add_done_callback(self._open.pop)

    async def _carry(self, near):
        """One connection until either side, or a cut, ends it."""
        far = None
        try:
            far = await self._connected()
            self.connections += 1
            for side in (near, far):
                if side.family != socket.AF_UNIX:
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [self._loop.create_task(self._pump(*way)) for way in ((near, far, UP), (far, near, DOWN))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):  # nobody at the target, or cut
            pass
        finally:
            reset = self._open.get(asyncio.current_task(), False)
            for side in filter(None, (near, far)):
                _close(side, reset)

    async def _connected(self):
        family, where = _place(self._target)
        far = socket.socket(family)
        far.setblocking(False)
        try:
            await self._loop.sock_connect(far, where)
        except BaseException:
            far.close()
            raise
        return far

    async def _pump(self, source, sink, direction):
        while data := await self._loop.sock_recv(source, 65536):
            await self._carrying.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if direction is UP and self._last is DOWN:
                self.turns += 1
            self._last = direction
            while data:
                piece, data = data[: self.piece_bytes], data[self.piece_bytes :]
                await self._send(sink, piece, direction)

    async def _send(self, sink, piece, direction):
        fuse = self._fuse[direction]
        if fuse is not None and fuse[0] < len(piece):
            self._fuse[direction] = None
            if fuse[0]:
                await self._loop.sock_sendall(sink, piece[: fuse[0]])
            self._end_all(fuse[1])
            raise ConnectionAbortedError
        if fuse is not None:
            self._fuse[direction] = (fuse[0] - len(piece), fuse[1])
        if self.bytes_per_s < math.inf:
            await asyncio.sleep(len(piece) / self.bytes_per_s)
        self.carried[direction] += len(piece)
        await self._loop.sock_sendall(sink, piece)

    def _end_all(self, reset):
        """Also what is still being connected."""
        self.drops += bool(self._open)
        for task in self._open:
            self._open[task] = reset
            task.cancel()
        return len(self._open)


def _place(target):
    """Family and address of a target."""
    if target.startswith("unix:"):
        return socket.AF_UNIX, target.removeprefix("unix:")
    host, _, port = target.rpartition(":")
    return socket.AF_INET, (host, int(port))


def _close(side, reset):
    if reset and side.family != socket.AF_UNIX:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    side.close()
