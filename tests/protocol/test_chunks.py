"""Messages out of chunks: the same however the bytes come, and an end to whatever is none."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simservice.protocol.chunks import (
    LINE_BYTES,
    TRAILER_BYTES,
    Broken,
    Messages,
    TooLarge,
    as_chunk,
    fields,
    metadata,
    whole,
)

MOST = 1000
END = b"0\r\n\r\n"  # of a body without trailers


def chunked(body, cuts):
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return b"".join(b"%X;ext=1\r\n%s\r\n" % (b - a, body[a:b]) for a, b in itertools.pairwise(edges))


def pieces(data, cuts):
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


numbers = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=60)), max_size=6), numbers, numbers, st.booleans())
def test_messages_and_trailers_are_the_same_however_they_are_cut(messages, chunks, cuts, told):
    body = b"".join(bytes([flag]) + len(message).to_bytes(4, "big") + message for flag, message in messages)
    trailers = b"grpc-status: 5\r\nwhy-bin: AP8" if told else b""
    data = chunked(body, chunks) + (b"0\r\n" + trailers + b"\r\n\r\n" if told else END)
    reader, found = Messages(MOST), []
    for piece in pieces(data, cuts):
        assert not reader.over
        found += reader.read(piece)
    assert found == messages
    assert (reader.over, reader.trailers) == (True, trailers)
    if told:
        assert list(metadata(fields(reader.trailers.split(b"\r\n")))) == [("why-bin", b"\x00\xff")]


@given(st.binary(max_size=300))
def test_a_chunk_that_is_one_message_is_read_at_once_and_as_by_the_reader(message):
    data = b"".join(as_chunk(message))
    assert whole(data) == message
    reader = Messages(MOST)
    assert list(reader.read(data)) == [(0, message)]
    assert reader.between
    for cut in (data[:-1], data + b"x", data[1:], data.replace(b"\0", b"\1", 1)):
        assert whole(cut) != message or not message


def test_between_two_messages_is_where_a_chunk_and_a_message_begin():
    reader = Messages(MOST)
    data = b"".join(as_chunk(b"abc"))
    for number in range(1, len(data)):
        list(reader.read(data[number - 1 : number]))
        assert not reader.between
    assert list(reader.read(data[-1:])) == []
    assert reader.between


def test_a_message_is_refused_by_its_length_alone():
    with pytest.raises(TooLarge, match=f"{MOST + 1} bytes, {MOST} are the most"):
        list(Messages(MOST).read(b"5\r\n\0" + (MOST + 1).to_bytes(4, "big")))


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"-5\r\n",
        b"\r\n",
        b"ffffffffffff\r\n",
        b"5\r\n\0\0\0\0\1X\r\n",
        b"1" * (LINE_BYTES + 1),
        b"0\r\n" + b"a" * (TRAILER_BYTES + 1),
    ],
)
def test_what_is_no_body_in_chunks_is_broken(data):
    with pytest.raises(Broken):
        list(Messages(MOST).read(data))
    reader = Messages(MOST)
    with pytest.raises(Broken):
        for byte in data:
            list(reader.read(bytes([byte])))


def test_what_stands_behind_the_end_is_nobodys():
    reader = Messages(MOST)
    assert list(reader.read(END + b"zz\r\n")) == []
    assert list(reader.read(b"zz\r\n")) == []
    assert (reader.over, reader.trailers) == (True, b"")
