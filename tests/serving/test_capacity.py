"""How many lanes fit: never more than asked for, fewer where memory is short, an error where there is none."""

import pytest
from toy import Toy, toy_spec

from simservice.errors import ConfigError
from simservice.serving import capacity


@pytest.fixture
def world():
    return Toy(toy_spec())


def lane_bytes(world):
    return sum(row.numel() * row.element_size() for row in world.allocate(1, "cpu").values())


def test_what_was_asked_for_is_given_where_there_is_room(world):
    assert capacity.lanes_that_fit(world, "cpu", 4096) == 4096
    assert capacity.free_bytes("cpu") > 2**20


def test_a_short_memory_gives_fewer_lanes_and_says_so(world, monkeypatch, caplog):
    free = lane_bytes(world) * capacity.COPIES * 200
    monkeypatch.setattr(capacity, "free_bytes", lambda device: free)
    assert capacity.lanes_that_fit(world, "cpu", 4096) == int(200 * capacity.PART)
    assert "memory for 100 lanes" in caplog.text


def test_a_device_without_room_for_one_lane_is_told(world, monkeypatch):
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 100)
    with pytest.raises(ConfigError, match="100 bytes free"):
        capacity.lanes_that_fit(world, "cpu", 1)


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("1000", "400", 600), ("max", "400", 0), ("1000", "2000", 1), (None, None, 0)]
)
def test_a_containers_limit_counts_where_there_is_one(monkeypatch, limit, used, left):
    texts = {"memory.max": limit, "memory.current": used}
    monkeypatch.setattr(capacity, "_text", lambda path: f"{texts[path.name]}\n" if texts[path.name] else "")
    assert capacity._container_bytes() == left
