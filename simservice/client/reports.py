"""Reports whole real episodes to a service, and reads what was reported. Knows no grpc.

    report("127.0.0.1:50051", "cartpole", episodes)

Reports show whether agents do in reality what they do in the dream, and corroborate what the monitor's own probes say.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from simservice.client.access import Tls
from simservice.client.channel import Connection
from simservice.errors import InvalidInput, QuotaExceeded, ServerUnavailable, StoreUnavailable
from simservice.protocol.messages import WorldContract, decode_world
from simservice.protocol.reports import MOST_BYTES, MOST_EPISODES, decode_episode, encode_episode
from simservice.protocol.v1 import service_pb2 as pb
from simservice.types import Episode

FIRST_PAUSE_S = 0.1


@dataclass(frozen=True)
class Receipt:
    """What became of reported episodes."""

    accepted: int
    repeated: int  # the service had them already


@dataclass(frozen=True)
class Reported:
    """One episode that somebody reported."""

    reporter: str  # a pseudonym, the same for all of one tenant
    episode: Episode
    environment_version: str


def report(
    address: str,
    world: str,
    episodes: Sequence[Episode],
    *,
    environment_version: str = "",
    patience_s: float = 30.0,
    token: str | None = None,
    tls: Tls = None,
    on_progress: Callable[[int], None] = lambda episodes: None,
) -> Receipt:
    """Hands whole episodes of the real environment in; one that was handed in before is not counted again.

    An interrupted call is repeated for `patience_s`. InvalidInput names the first episode and field that does not fit
    the world's spaces; nothing of its request is kept.
    """
    accepted = repeated = 0
    with contextlib.closing(Connection(address, world, token=token, tls=tls)) as connection:
        spec = decode_world(connection.get_world(world, patience_s)).spec
        for place, episode in enumerate(episodes):
            if not (episode.terminated or episode.truncated):
                problem = "has not ended: report it whole, once it has terminated or was truncated"
                raise InvalidInput(f"episodes[{place}]", problem)
        messages = (
            encode_episode(episode, spec.observation_space, spec.action_space, environment_version)
            for episode in episodes
        )
        for batch in _batches(messages):
            reply = _patiently(connection, pb.ReportRequest(world=world, episodes=batch), patience_s)
            accepted, repeated = accepted + reply.accepted, repeated + reply.repeated
            on_progress(len(batch))
    return Receipt(accepted, repeated)


def read_reports(
    address: str,
    contract: WorldContract,
    after: int = 0,
    *,
    timeout_s: float = 10.0,
    token: str | None = None,
    tls: Tls = None,
) -> tuple[list[Reported], int]:
    """Some of the episodes that were reported of a world behind `after`, and where to go on."""
    spec = contract.spec
    with contextlib.closing(Connection(address, spec.name, token=token, tls=tls)) as connection:
        reply = connection.read_reports(pb.ReadReportsRequest(world=spec.name, after=after), timeout_s)
    found = [
        Reported(
            one.reporter,
            decode_episode(one.episode, spec.observation_space, spec.action_space),
            one.episode.environment_version,
        )
        for one in reply.reports
    ]
    return found, reply.last


def _batches(messages: Iterator[pb.RealEpisode]) -> Iterator[list[pb.RealEpisode]]:
    """As many as one request takes."""
    batch: list[pb.RealEpisode] = []
    size = 0
    for message in messages:
        more = message.ByteSize()
        if batch and (len(batch) == MOST_EPISODES or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += more
    if batch:
        yield batch


def _patiently(connection: Connection, request: pb.ReportRequest, patience_s: float) -> pb.ReportReply:
    deadline, pause = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return connection.report(request, max(deadline - time.monotonic(), FIRST_PAUSE_S))
        except (ServerUnavailable, StoreUnavailable, QuotaExceeded) as error:
            wait_s = error.retry_after_s or pause
            if time.monotonic() + wait_s > deadline:
                raise
            time.sleep(wait_s)
            pause = min(2 * pause, 2.0)
