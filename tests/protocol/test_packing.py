"""Large replies come packed where the caller can unpack them and it is worth it; nothing else changes."""

import numpy as np
import pytest
import zstandard

from simservice.errors import InternalError, InvalidInput
from simservice.protocol import packing
from simservice.protocol.packing import PAUSE, SMALL_BYTES, Packer, offered, said_in, unpacked
from simservice.protocol.step_replies import timed
from simservice.protocol.v1 import service_pb2 as pb


def reply(frames: bytes) -> bytes:
    return pb.PlayReply(sequence=7, rendered=pb.Rendered(height=8, width=8, frames=frames)).SerializeToString()


PLAIN = reply(bytes(10 * SMALL_BYTES))
NOISE = reply(np.random.default_rng(0).bytes(10 * SMALL_BYTES))
HALF = reply(np.random.default_rng(0).integers(0, 16, 10 * SMALL_BYTES, dtype=np.uint8).tobytes())


def test_a_packed_reply_holds_the_very_same_one_and_the_times_beside_it():
    packed = Packer("zstd").pack(PLAIN)
    assert len(packed) < len(PLAIN) / 100
    found = unpacked(pb.PlayReply.FromString(timed(packed, 123, (1, 2, 3, 4))))
    assert (found.server_ns, found.queue_ns, found.wait_ns, found.model_ns, found.encode_ns) == (123, 1, 2, 3, 4)
    assert found == pb.PlayReply.FromString(timed(PLAIN, 123, (1, 2, 3, 4)))


@pytest.mark.parametrize("said", ["", "lz4", "zst", "always"])
def test_what_the_caller_cannot_unpack_is_not_packed(said):
    assert Packer(said).pack(PLAIN) is PLAIN


def test_small_replies_stay_as_they_are():
    small = reply(bytes(SMALL_BYTES // 2))
    assert Packer("zstd, always").pack(small) is small


def test_what_is_not_worth_it_is_left_alone_for_a_while():
    packer = Packer("br, zstd")
    assert packer.pack(NOISE) is NOISE
    assert all(packer.pack(PLAIN) is PLAIN for _ in range(PAUSE))
    assert packer.pack(PLAIN) is not PLAIN


def test_always_packs_what_gets_smaller_at_all():
    assert Packer("zstd").pack(HALF) is HALF
    assert len(Packer("zstd, always").pack(HALF)) < len(HALF)
    assert Packer("zstd, always").pack(NOISE) is NOISE


def test_a_bomb_and_what_is_no_codec_of_ours_are_refused(monkeypatch):
    monkeypatch.setattr(packing, "MOST_BYTES", 1000)
    with pytest.raises(InternalError, match="more than 1,000 bytes"):
        unpacked(pb.PlayReply(packed=zstandard.compress(bytes(1001))))
    with pytest.raises(InternalError, match="cannot be unpacked"):
        unpacked(pb.PlayReply(packed=b"no frame at all"))
    endless = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    with pytest.raises(InternalError, match="no size"):
        unpacked(pb.PlayReply(packed=endless))


def test_a_client_offers_what_it_has_and_its_user_wants(monkeypatch):
    assert [offered(how) for how in ("auto", "always", "never")] == ["zstd", "zstd, always", None]
    with pytest.raises(InvalidInput, match="'fast' is not"):
        offered("fast")
    monkeypatch.setattr(packing, "zstandard", None)
    assert offered("auto") is None
    with pytest.raises(InvalidInput, match="pip install"):
        offered("always")


def test_the_offer_is_found_in_a_calls_metadata():
    assert said_in([("application", "toy"), ("simservice-codecs", "zstd")]) == "zstd"
    assert said_in([("simservice-codecs", b"\xff")]) == "\ufffd"
    assert said_in([]) == ""
