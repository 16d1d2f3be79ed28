"""Ten thousand tries of one tenant to reach sessions of another: each is answered as if there were no such session."""

from __future__ import annotations

import secrets
import time

import grpc
import numpy as np
from line import Line, Seen, at_most, exactly
from local_process import LocalProcess
from serving_tools import tenants_file

from simservice.client.session import RemoteSession
from simservice.protocol.v1 import service_pb2 as pb
from simservice.protocol.v1.service_pb2_grpc import WorldServiceStub

SESSIONS, LANES = 32, 2
TELLING = 0.1  # of a coin: how much better than chance the time of an answer may tell foreign from unknown


def foreign(stage, options, told):
    count = 1_000 if options.short else 10_000
    path, tokens = tenants_file(stage.folder, victim={}, thief={})
    with LocalProcess(stage.toy, tenants=path) as server:
        victims = [
            RemoteSession(server.address, "toy", num_envs=LANES, token=tokens["victim"]) for _ in range(SESSIONS)
        ]
        for session in victims:
            session.reset()
        answers, times = tries(server.address, tokens["thief"], [session.token for session in victims], count, told)
        opened = reused_keys(server.address, tokens)
        went_on = [session.step({"action": np.ones(LANES, np.int64)}) for session in victims]
        reconnects = sum(session.reconnects for session in victims)
        for session in victims:
            session.close()
    yield exactly("foreign ids that were not refused", answers["foreign"]["OK"], 0)
    yield Seen(
        f"answers to {count:,} foreign and {count:,} unknown ids",
        "one, the same",
        " / ".join(sorted({text for kind in answers.values() for text in kind if text != "OK"})),
        set(answers["foreign"]) - {"OK"} == set(answers["unknown"]) and len(answers["unknown"]) == 1,
    )
    yield exactly("another's open key that led to another's session", opened, 0)
    yield exactly("sessions of the victim that went on undisturbed", len(went_on) - reconnects, SESSIONS)
    medians = {kind: 1e6 * float(np.median(found)) for kind, found in times.items()}
    words = f"time tells foreign from unknown, over chance ({medians['foreign']:.0f} and {medians['unknown']:.0f} us)"
    yield at_most(words, abs(separation(times["foreign"], times["unknown"]) - 0.5), TELLING)


def tries(address, token, foreign_ids, count, told):
    """What was answered how often, without the ids, and the seconds of each try; foreign and unknown ids in turn."""
    answers = {kind: {"OK": 0} if kind == "foreign" else {} for kind in ("foreign", "unknown")}
    times = {kind: [] for kind in answers}
    with grpc.insecure_channel(address) as channel:
        stub = WorldServiceStub(channel)
        for number in range(count):
            if number % 100 == 0:
                told(f"{number:,} of {count:,}", number / count)
            pair = [("foreign", foreign_ids[number % len(foreign_ids)]), ("unknown", secrets.token_hex(16))]
            for kind, session in pair if number % 2 else reversed(pair):
                began = time.perf_counter()
                text = _answer(stub, session, token)
                times[kind].append(time.perf_counter() - began)
                answers[kind][text] = answers[kind].get(text, 0) + 1
    return answers, times


def reused_keys(address, tokens):
    """How often an open with a key that another tenant used gave that tenant's session."""
    same = 0
    with grpc.insecure_channel(address) as channel:
        stub = WorldServiceStub(channel)
        for _ in range(20):
            opening = pb.PlayRequest(open=pb.Open(world="toy", num_envs=1, open_key=secrets.token_bytes(16)))
            ids = [
                next(stub.Play(iter([opening]), metadata=_metadata(tokens[tenant]))).opened.session
                for tenant in ("victim", "thief")
            ]
            same += ids[0] == ids[1]
    return same


def separation(ones, others):
    """The chance that one of the first takes longer than one of the others; a half: they cannot be told apart."""
    ones, others = np.sort(ones), np.sort(others)
    below = np.searchsorted(others, ones, side="left") + np.searchsorted(others, ones, side="right")
    return float(below.mean() / (2 * len(others)))


def _answer(stub, session, token):
    """All that a caller sees of a refusal, without the id itself."""
    call = stub.Play(iter([pb.PlayRequest(resume=pb.Resume(session=session))]), metadata=_metadata(token), timeout=30)
    try:
        next(call)
    except grpc.RpcError as error:
        trailing = sorted((key, str(value)) for key, value in error.trailing_metadata() if key != "date")
        seen = f"{error.code().name}: {error.details()} {len(trailing)} trailing, {sum(len(v) for _, v in trailing)} B"
        return seen.replace(session, "ID").replace(session[:8], "ID")
    call.cancel()
    return "OK"


def _metadata(token):
    return (("application", "toy"), ("authorization", f"Bearer {token}"))


LINES = (Line("foreign", "10,000 ids of another tenant's sessions", foreign),)
