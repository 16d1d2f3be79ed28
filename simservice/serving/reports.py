"""Takes users' real episodes in and hands them to who may read them: own ones to all, everybody's to a monitor.

A step that is reported counts against a tenant's steps per second as one that is imagined does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from simservice.errors import InvalidInput
from simservice.protocol.reports import MOST_BYTES, MOST_EPISODES, decode_episode
from simservice.protocol.strict import refuse_unknown
from simservice.protocol.v1 import service_pb2 as pb
from simservice.sessions.quotas import Tenant
from simservice.sessions.reports import ReportStore

if TYPE_CHECKING:
    from simservice.serving.facade import Hosted

MOST_READ_BYTES = 2 * MOST_BYTES


class ReportDesk:
    """The calls Report and ReadReports, but for who may come in and how errors leave."""

    def __init__(self, store: ReportStore) -> None:
        self._store = store

    async def report(self, request: pb.ReportRequest, host: Hosted, tenant: Tenant) -> pb.ReportReply:
        """Keeps all episodes, or none and says which field is wrong."""
        try:
            self._check(request, host, tenant)
        except InvalidInput:
            host.metrics.count_reported("refused", max(1, len(request.episodes)))
            raise
        accepted = 0
        for episode in request.episodes:
            accepted += await self._store.add(
                host.name, tenant.name, episode.id, episode.SerializeToString(deterministic=True)
            )
        host.metrics.count_reported("accepted", accepted)
        host.metrics.count_reported("repeated", len(request.episodes) - accepted)
        return pb.ReportReply(accepted=accepted, repeated=len(request.episodes) - accepted)

    async def read(self, request: pb.ReadReportsRequest, host: Hosted, tenant: Tenant) -> pb.ReadReportsReply:
        """Some of the episodes behind the request's place."""
        refuse_unknown(request)
        limit = min(request.limit or MOST_EPISODES, MOST_EPISODES)
        whose = None if tenant.monitor else tenant.name
        found, last = await self._store.read(host.name, request.after, limit, MOST_READ_BYTES, whose)
        reports = [
            pb.ReadReportsReply.Report(
                reporter=pseudonym(report.tenant), episode=pb.RealEpisode.FromString(report.payload)
            )
            for report in found
        ]
        return pb.ReadReportsReply(reports=reports, last=last)

    def _check(self, request: pb.ReportRequest, host: Hosted, tenant: Tenant) -> None:
        refuse_unknown(request)
        count = len(request.episodes)
        if not 1 <= count <= MOST_EPISODES:
            raise InvalidInput("episodes", f"holds {count}; send 1 to {MOST_EPISODES} a request")
        budget = host.service.quotas.budget(tenant)
        if budget is not None:
            budget.spend(sum(episode.steps for episode in request.episodes))
        spec = host.contract.spec
        for place, episode in enumerate(request.episodes):
            decode_episode(episode, spec.observation_space, spec.action_space, f"episodes[{place}]")


def pseudonym(tenant: str) -> str:
    """What a reader sees instead of a tenant's name."""
    return hashlib.blake2b(tenant.encode(), digest_size=6).hexdigest()
