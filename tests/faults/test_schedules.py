"""Random schedules of duplicates, reorderings and retries keep the rules; broken services do not.

`make faults` plays 10,000.
"""

import pytest
import schedules
from counter_lanes import CounterLanes

from simservice.errors import SequenceGap
from simservice.sessions.memory_store import MemoryStore
from simservice.sessions.session import Session


def test_no_schedule_breaks_the_history():
    schedules.play(150)


def test_a_service_that_does_a_repeat_again_is_found(monkeypatch):
    def kept(self, sequence):
        if sequence > self.last_sequence + 1:
            raise SequenceGap(sequence, self.last_sequence + 1)
        return self.replies.get(sequence) if sequence < self.last_sequence else None

    monkeypatch.setattr(Session, "kept", kept)
    with pytest.raises(BaseException, match=r"another answer|effect|start where|order|was lost"):
        schedules.play(200, smallest=False)


def test_a_store_that_forgets_the_last_request_is_found(monkeypatch):
    claim = MemoryStore.claim

    async def forgetful(self, token):
        stored = self._known(token)
        if stored.journal:
            stored.journal.pop()
            stored.last_sequence -= 1
        return await claim(self, token)

    monkeypatch.setattr(MemoryStore, "claim", forgetful)
    with pytest.raises(BaseException, match="was lost"):
        schedules.play(200, smallest=False)


def test_lanes_that_are_not_quite_restored_are_found(monkeypatch):
    restore = CounterLanes._restore

    def sloppy(self, lanes, snapshot):
        restore(self, lanes, snapshot)
        self.rows["elapsed"][lanes] += 1

    monkeypatch.setattr(CounterLanes, "_restore", sloppy)
    with pytest.raises(BaseException, match=r"start where|another answer"):
        schedules.play(300, smallest=False)
