"""Valid messages, and what becomes of them in careless or hostile hands. Seeded, so that it repeats."""

import json
import random
import struct

import numpy as np

from simservice.protocol.v1 import service_pb2 as pb

NUMBERS = (0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 5e-324)


def requests(rng, token, sequence, lanes, action):
    """One valid request of each kind; `action` makes the bytes of an action."""
    values = pb.Values(leaves=[action(lanes)])
    seeds = np.arange(lanes, dtype="<i8").tobytes()
    frames = pb.Values(leaves=[np.zeros((lanes, 2, 4), "<f4").tobytes()])
    context = pb.Grounding(frames=2, observation=frames, action=pb.Values(leaves=[action(lanes)]))
    script = pb.Values(leaves=[action(6 * lanes)])
    policy = pb.PolicyUse(content_hash=rng.choice("0f") * 64, epsilon=rng.random(), greedy=rng.random() < 0.5)
    options = json.dumps({"a": [1, None, {"b": "c" * rng.randrange(40)}]})
    return [
        pb.PlayRequest(sequence=sequence, step=pb.Step(action=values)),
        pb.PlayRequest(sequence=sequence, step=pb.Step(action=values)),
        pb.PlayRequest(sequence=sequence, reset=pb.Reset(mask=b"\1" * lanes, seeds=seeds)),
        pb.PlayRequest(sequence=sequence, reset=pb.Reset(options_json=options)),
        pb.PlayRequest(sequence=sequence, reset=pb.Reset(context=context)),
        pb.PlayRequest(
            sequence=sequence, fork=pb.Fork(lanes=[0], copies=2, luck=rng.randrange(3), fork_key=rng.randbytes(16))
        ),
        pb.PlayRequest(imagine=pb.Imagine(steps=3, actions=script, copies=2, omit_observation=rng.random() < 0.5)),
        pb.PlayRequest(sequence=sequence, imagine=pb.Imagine(steps=6, actions=script, advance=True)),
        pb.PlayRequest(imagine=pb.Imagine(steps=2, policy=policy, luck=pb.LUCK_FRESH, seeds=seeds, lanes=range(lanes))),
        pb.PlayRequest(sequence=sequence, save=pb.Save()),
        pb.PlayRequest(sequence=sequence, restore=pb.Restore(point=rng.randrange(sequence + 1))),
        pb.PlayRequest(sequence=sequence, forget=pb.Forget(points=[sequence, 0])),
        pb.PlayRequest(render=pb.Render()),
        pb.PlayRequest(close=pb.Close()),
        pb.PlayRequest(resume=pb.Resume(session=token)),
        pb.PlayRequest(open=pb.Open(world="toy", num_envs=lanes, open_key=rng.randbytes(16))),
        pb.PlayRequest(),
    ]


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """One to three changes of a serialised message."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        raw = rng.choice(CHANGES)(rng, raw)
    return raw


def _flip(rng, raw):
    if not raw:
        return rng.randbytes(1)
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]


def _cut(rng, raw):
    return raw[: rng.randrange(len(raw) + 1)]


def _insert(rng, raw):
    place = rng.randrange(len(raw) + 1)
    return raw[:place] + rng.randbytes(rng.randrange(1, 9)) + raw[place:]


def _overwrite(rng, raw):
    new = rng.choice((struct.pack("<d", rng.choice(FLOATS)), struct.pack("<f", float("nan")), b"\xff" * 8, b"\0" * 8))
    place = rng.randrange(len(raw) + 1)
    return raw[:place] + new + raw[place + len(new) :]


def _repeat(rng, raw):
    return raw + raw[rng.randrange(len(raw) + 1) :]


def _grow(rng, raw):
    request = _parsed(raw)
    if request is None:
        return raw + rng.randbytes(64)
    kind = request.WhichOneof("call")
    if kind == "step":
        request.step.action.leaves.extend([rng.randbytes(rng.choice((0, 1, 8, 4096)))] * rng.choice((1, 2, 50)))
    elif kind == "reset" and rng.random() < 0.5:
        request.reset.options_json = rng.choice(
            ("[" * 60_000, '{"a":' * 12_000, "9" * 5000, '{"a": ' + "1" * 5000 + "}")
        )
    elif kind == "reset":
        request.reset.mask = rng.randbytes(rng.choice((1, 2, 3, 1000)))
        request.reset.options_json = rng.choice(
            ("[" * 2000, "{}" * 9, '{"a":' * 900, "nul", '{"a": NaN}', "\0", "1e999")
        )
        request.reset.context.frames = rng.choice((0, 1, 2, 3, 64, 2**32 - 1))
    elif kind == "imagine":
        request.imagine.steps = rng.choice((0, 1, 3, 6, 100_000, 2**32 - 1))
        request.imagine.copies = rng.choice((0, 1, 2, 9000, 2**31, 2**32 - 1))
        request.imagine.seeds = rng.randbytes(rng.choice((0, 7, 8, 16, 4096)))
        request.imagine.luck = rng.choice((0, 1, 2, 3, -1))
        request.imagine.lanes.extend([rng.choice((0, 1, 2, 2**32 - 1))] * rng.choice((0, 1, 2)))
        if rng.random() < 0.5:
            request.imagine.policy.content_hash = rng.choice(("", "g" * 64, "A" * 64, "\N{SNOWMAN}" * 64, "0" * 9000))
            request.imagine.policy.epsilon = rng.choice((*FLOATS, 2.0))
        request.timeout_ms = rng.choice((0, 1, 2**32 - 1))
    elif kind == "open":
        request.open.world = rng.choice(("", "toy@", "@", "t" * 5000, "\N{SNOWMAN}" * 900, "toy\n", "../toy"))
        request.open.open_key = rng.randbytes(rng.choice((0, 15, 16, 64, 65, 5000)))
    elif kind == "resume":
        request.resume.session = rng.choice(("", "x" * 32, "\N{SNOWMAN}" * 32, "0" * 9000, "{}" * 16, "*" * 32))
    return request.SerializeToString()


def _renumber(rng, raw):
    request = _parsed(raw)
    if request is None:
        return raw
    request.sequence = rng.choice(NUMBERS)
    if request.WhichOneof("call") == "open":
        request.open.num_envs = rng.choice([number for number in NUMBERS if number < 2**32])
        request.open.autoreset_mode = rng.choice((0, 1, 2, 3, 4, 77, -1))
    return request.SerializeToString()


def _unknown(rng, raw):
    tag = (rng.choice((8, 9, 10, 17, 99, 2000, 2**28)) << 3) | rng.choice((0, 2))
    return raw + _varint(tag) + (_varint(rng.choice(NUMBERS)) if tag & 7 == 0 else b"\3abc")


def _varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _parsed(raw):
    try:
        return pb.PlayRequest.FromString(raw)
    except Exception:  # whatever the runtime says of bytes that are no message
        return None


CHANGES = (_flip, _flip, _cut, _insert, _overwrite, _repeat, _grow, _renumber, _unknown)
