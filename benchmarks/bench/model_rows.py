"""Rows about a world that costs something: what is added to it, and what many small clients cost beside a large one."""

from __future__ import annotations

from contextlib import ExitStack

from bench import stand_ins
from bench.crowd import ECHO, SHARED, STEPPED_BYTES, crowd
from bench.lines import Found, Pace, at_least, table, told
from bench.peers.proxied_echo import behind_proxy
from bench.player import players
from bench.processes import served_by
from bench.stage import Stage
from bench.timing import Contestant, Spread, compete

LANES, CLIENTS, LANES_EACH = 256, 32, 8
REPLICAS, LANES_A_REPLICA = 8, 16
OURS, HERE, BARE = "simservice", "engine, in process", "bare world.step loop"


def recurrent(stage: Stage, pace: Pace) -> Found:
    """A recurrent state-space model of 256 + 16 x 16 on the CPU."""
    row, title = "rssm", f"{LANES} lanes of a recurrent world of 256 + 16×16"
    with stage.serving("recurrent") as (address, name):
        places = {
            OURS: ("bench.served:served", address, name, LANES),
            HERE: ("bench.peers.engine_here:peer", "recurrent", LANES),
            BARE: ("bench.peers.engine_here:bare", "recurrent", LANES),
        }
        with players(places) as (runners, _):
            series = compete(runners, pace.rounds, 2 * pace.seconds)
    words = f"RSSM-size CPU world, {LANES} lanes"
    lines = [
        at_least(row, f"{words}, service over engine", series.ratio(OURS, HERE, "rate"), 0.85, 0.95, pace),
        at_least(row, f"{words}, engine over bare loop", series.ratio(HERE, BARE, "rate"), 0.9, 0.95, pace),
    ]
    return Found(lines, [table(row, title, series)])


def many_clients(stage: Stage, pace: Pace) -> Found:
    """The same world and as many lanes, in many hands; and in a bare server that steps it for whoever waits.

    That one tells what of it is the machine's: it has no sessions, journal, metrics or codec.
    """
    row = "many-clients"
    one, many = f"1 client of {LANES} lanes", f"{CLIENTS} clients of {LANES_EACH} lanes"
    bare_one, bare_many = f"{one}, of a bare server", f"{many}, of a bare server"
    with ExitStack() as stack:
        address, name = stack.enter_context(stage.serving("recurrent"))
        runners: dict[str, Contestant] = {
            many: stack.enter_context(crowd(address, name, CLIENTS, LANES_EACH)),
            one: stack.enter_context(crowd(address, name, 1, LANES, processes=1)),
        }
        server = stack.enter_context(served_by("bench.peers.raw_shared", "recurrent"))
        bare = stack.enter_context(behind_proxy(server))
        runners[bare_many] = stack.enter_context(crowd(bare, SHARED, CLIENTS, LANES_EACH))
        runners[bare_one] = stack.enter_context(crowd(bare, SHARED, 1, LANES, processes=1))
        series = compete(runners, pace.rounds, 2 * pace.seconds)
    lines = [
        at_least(row, f"{many} over {one}", series.ratio(many, one, "rate"), 0.7, 0.9, pace),
        told(row, "the same of a bare grpc.aio server of the world", series.ratio(bare_many, bare_one, "rate")),
    ]
    return Found(lines, [table(row, "the same recurrent world, shared", series)])


def replicas(stage: Stage, pace: Pace) -> Found:
    """A world that sleeps 2 ms a tick, on one replica and on eight, with one client a replica; and bare echoes.

    The echoes tell what of it is the machine's: as many processes that read, sleep as long, and answer.
    """
    row, count = "replicas", REPLICAS if stage.ray else 1
    one, all_of_them = "1 replica", f"{count} replicas"
    echo, echoes = "1 bare echo that sleeps as long", f"{count} bare echoes"
    with ExitStack() as stack:
        lone = stack.enter_context(stage.serving("sleeper"))
        many = stack.enter_context(stage.serving("sleeper", replicas=count))
        runners: dict[str, Contestant] = {
            one: stack.enter_context(crowd(*lone, 1, LANES_A_REPLICA, processes=1)),
            all_of_them: stack.enter_context(crowd(*many, count, LANES_A_REPLICA)),
            echo: stack.enter_context(crowd(_sleepers(stack, 1), ECHO, 1, LANES_A_REPLICA, processes=1)),
            echoes: stack.enter_context(crowd(_sleepers(stack, count), ECHO, count, LANES_A_REPLICA)),
        }
        series = compete(runners, pace.rounds, 2 * pace.seconds)
    words = f"{all_of_them} over {count} × {one}, a world of 2 ms a tick"
    scaled = _a_piece(series.ratio(all_of_them, one, "rate"), count)
    lines = [
        at_least(row, words, scaled, 0.85, 0.95, pace),
        told(
            row,
            f"the same of {count} bare echoes over {count} × one",
            _a_piece(series.ratio(echoes, echo, "rate"), count),
        ),
    ]
    return Found(lines, [table(row, f"a world that sleeps 2 ms a tick, {LANES_A_REPLICA} lanes a client", series)])


def _sleepers(stack: ExitStack, count: int) -> str:
    """Addresses of so many servers that sleep as the world does, each behind an HAProxy."""
    words = STEPPED_BYTES, stand_ins.SleeperConfig().tick_s
    servers = [stack.enter_context(served_by("bench.peers.raw_echo", *words)) for _ in range(count)]
    return ",".join(stack.enter_context(behind_proxy(address)) for address in servers)


def _a_piece(ratio: Spread, count: int) -> Spread:
    return Spread(ratio.median / count, ratio.low / count, ratio.high / count)
