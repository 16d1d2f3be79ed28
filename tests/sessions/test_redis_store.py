import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import time

import pytest
import redis
import redis.crc

from simservice.errors import ConfigError, SessionFenced, StoreUnavailable, UnknownSession
from simservice.sessions import redis_journal
from simservice.sessions.embedded import EmbeddedStore
from simservice.sessions.redis_store import RedisStore
from simservice.sessions.store import SessionRecord

TOKEN = "0123456789abcdef" * 2
RECORD = SessionRecord(
    token=TOKEN, world="toy@1", num_envs=1, autoreset_mode="NextStep", seeds=bytes(8), open_key=bytes(16), epoch=1
)


@pytest.fixture
def server(tmp_path):
    with EmbeddedStore(tmp_path) as embedded:
        yield embedded


def using(url, test, **options):
    """Runs a test's coroutine with a store, in a loop of its own."""

    async def within():
        store = RedisStore(url, **options)
        try:
            await asyncio.wait_for(test(store), 60)
        finally:
            await store.close()

    asyncio.run(within())


def test_keys_of_a_session_share_one_prefix_one_slot_and_one_deadline(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        await store.append(TOKEN, 1, 2, b"two")
        await store.snapshot(TOKEN, 1, 1, b"state")
        await store.announce("toy@1", b"contract", 60)

    using(server.url, use, idle_ttl_s=600)
    with redis.Redis.from_url(server.url) as client:
        keys = client.keys("*")
        assert all(key.startswith(b"simservice:") for key in keys)
        ours = [key for key in keys if TOKEN.encode() in key]
        assert len(ours) == 3
        assert len({redis.crc.key_slot(key) for key in ours}) == 1
        assert len({client.pexpiretime(key) for key in ours}) == 1
        assert 590_000 < client.pttl(ours[0]) <= 600_000


def test_a_restarted_server_costs_no_call(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        await asyncio.to_thread(server.stop)
        appended = store.append(TOKEN, 1, 2, b"two")
        touched = asyncio.create_task(store.touch(TOKEN, 1))
        await asyncio.to_thread(server.start)
        await asyncio.gather(appended, touched)
        assert list((await store.claim(TOKEN)).journal) == [b"one", b"two"]

    using(server.url, use, patience_s=30)


def test_flushed_scripts_cost_no_call(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        with redis.Redis.from_url(server.url) as client:
            client.script_flush()
        await asyncio.gather(*(store.append(TOKEN, 1, n, b"n") for n in (2,)), store.touch(TOKEN, 1))
        assert (await store.claim(TOKEN)).last_sequence == 2

    using(server.url, use)


def test_a_server_that_is_gone_is_reported_once_patience_ends(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        await asyncio.to_thread(server.stop)
        began = time.monotonic()
        calls = (store.append(TOKEN, 1, 2, b"two"), store.claim(TOKEN), store.worlds())
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
        assert "REDIS_URL" in str(outcomes[0])
        assert time.monotonic() - began < 20

    using(server.url, use, patience_s=0.2)


def test_a_server_that_hangs_is_reported_and_used_again_when_it_goes_on(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                await store.append(TOKEN, 1, 2, b"two")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        epoch = (await claimed(store)).record.epoch
        with pytest.raises(SessionFenced):
            await store.append(TOKEN, epoch - 1, 2, b"late")
        last = (await store.claim(TOKEN)).last_sequence
        await store.append(TOKEN, epoch + 1, last + 1, b"next")

    async def claimed(store):
        while True:
            try:
                return await store.claim(TOKEN)
            except StoreUnavailable:
                continue

    using(server.url, use, patience_s=0.3)


def test_answers_after_a_failure_go_to_those_who_asked(server):
    async def use(store):
        await store.create(RECORD)
        outcomes = await asyncio.gather(
            store.append(TOKEN, 1, 1, b"one"),
            store.append(TOKEN, 9, 2, b"fenced"),
            store.append("f" * 32, 1, 1, b"unknown"),
            store.append(TOKEN, 1, 2, b"two"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), SessionFenced, UnknownSession, type(None)]

    using(server.url, use)


def test_closing_fails_appends_that_have_no_answer(tmp_path):
    async def use():
        store = RedisStore(f"unix://{tmp_path}/nobody", patience_s=30)
        append = store.append(TOKEN, 1, 1, b"one")
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await append

    asyncio.run(use())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with the openssl program, which is not installed")
    subprocess.run(
        ["openssl", *words.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@contextlib.asynccontextmanager
async def forwarded(server, context=None):
    """A TCP port on localhost, with TLS if a context is given, that leads to the server's socket."""

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_server(serve, "localhost", 0, ssl=context) as front:
        yield front.sockets[0].getsockname()[1]


async def use_fully(store):
    """Small and large appends, one by one and together, then reads them back."""
    await store.create(RECORD)
    for sequence in range(1, 20):
        await store.append(TOKEN, 1, sequence, b"%d" % sequence)
    await asyncio.gather(*(store.append(TOKEN, 1, sequence, bytes(100_000)) for sequence in range(20, 60)))
    recovery = await store.claim(TOKEN)
    assert (recovery.last_sequence, len(recovery.journal), len(recovery.journal[-1])) == (59, 59, 100_000)


def test_a_tcp_address_works_like_a_socket(server):
    async def live():
        async with forwarded(server) as port:
            store = RedisStore(f"redis://localhost:{port}/1")
            await use_fully(store)
            await store.close()

    asyncio.run(asyncio.wait_for(live(), 60))


def test_a_tls_address_works_like_a_socket_and_an_unknown_certificate_is_refused(server, certificate):
    cert, key = certificate

    async def live():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        async with forwarded(server, context) as port:
            store = RedisStore(f"rediss://localhost:{port}/0?ssl_ca_certs={cert}")
            await use_fully(store)
            await store.close()
            doubtful = RedisStore(f"rediss://localhost:{port}/0", patience_s=30)
            for call in (doubtful.worlds, lambda: doubtful.append(TOKEN, 1, 1, b"one")):
                with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                    await call()
            await doubtful.close()

    asyncio.run(asyncio.wait_for(live(), 60))


@pytest.mark.parametrize("url", ["http://host:1", "nonsense", "redis://host:notaport"])
def test_a_url_of_another_kind_is_an_error_that_shows_the_right_ones(url):
    with pytest.raises(ConfigError, match="redis://host:6379/0"):
        RedisStore(url)


def test_a_refused_password_is_reported_at_once_and_not_shown(server):
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")

    async def refused(store):
        began = time.monotonic()
        for call in (store.worlds(), store.append(TOKEN, 1, 1, b"one")):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert "secret" not in str(caught.value)
        assert time.monotonic() - began < 20

    async def accepted(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")

    path = server.url.removeprefix("unix://")
    using(f"unix://:secret@{path}", refused, patience_s=30)
    using(f"unix://:right@{path}?db=3", accepted)


@pytest.mark.parametrize("token", ["", "short", "}" * 32, "a" * 33])
def test_what_is_no_token_is_an_unknown_session(server, token):
    async def use(store):
        with pytest.raises(UnknownSession):
            await store.record(token)

    using(server.url, use)


def test_appends_of_one_turn_leave_in_one_write_and_are_answered_before_the_loop_turns(server):
    async def use(store):
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one")
        sent = [store.append(TOKEN, 1, sequence, b"next") for sequence in range(2, 34)]
        with redis.Redis.from_url(server.url) as client:
            reads = client.info("stats")["total_reads_processed"]
            store.flush()
            deadline = time.monotonic() + 10
            while not all(append.done() for append in sent):  # a busy machine may need more than one look
                assert time.monotonic() < deadline
                store.receive()
            assert [append.exception() for append in sent] == [None] * 32
            assert client.info("stats")["total_reads_processed"] - reads == 2  # the appends, and this very question

    using(server.url, use)


def test_a_process_of_very_many_connections_leaves_appends_to_the_loop(server, monkeypatch):
    monkeypatch.setattr(redis_journal, "SELECTABLE", 0)

    async def use(store):
        await store.create(RECORD)
        sent = [store.append(TOKEN, 1, sequence, b"next") for sequence in range(1, 9)]
        store.flush()
        store.receive()
        await asyncio.gather(*sent)
        assert (await store.claim(TOKEN)).last_sequence == 8

    using(server.url, use)


def test_an_acknowledged_append_is_timed(server):
    async def use(store):
        times = []
        await store.create(RECORD)
        await store.append(TOKEN, 1, 1, b"one", times.append)
        with pytest.raises(SessionFenced):
            await store.append(TOKEN, 7, 2, b"two", times.append)
        assert len(times) == 1
        assert 0 < times[0] < 10

    using(server.url, use)
