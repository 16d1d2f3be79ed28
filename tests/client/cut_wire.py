"""A TCP relay whose connections a test can cut, as a dying proxy or a pulled cable would."""

import contextlib
import socket
import threading


class CutWire:
    """Listens on `address` and relays to `target` until cut(); later connections are relayed again."""

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Breaks every connection at once, in both directions."""
        with self._lock:
            broken, self._open = self._open, []
        for one in broken:
            _end(one)

    def close(self):
        _end(self._listener)
        self.cut()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source, sink):
        with contextlib.suppress(OSError):  # cut: the other thread sees it too
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            _end(one)


def _end(one):
    with contextlib.suppress(OSError):  # it had ended
        one.shutdown(socket.SHUT_RDWR)
    one.close()
