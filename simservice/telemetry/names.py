"""Every metric's name, labels and help text, once. Dashboards, alerts and exporters are all made from these.

Labels are bounded: worlds, versions (only the newest is shown), calls, codes, horizons, kinds, states. Never a tenant,
a token, a session, a path, a seed or free text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]

# Few buckets each: all series of a world, those of two replicas and of its monitor together, stay within 200.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0)
APPEND_BUCKETS_S = (0.001, 0.01, 0.1)
TICK_BUCKETS_S = (0.001, 0.01)
BATCH_BUCKETS = (16, 256)


@dataclass(frozen=True)
class Name:
    """A metric as it is written in dashboards and alerts."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Kind = "gauge"


# ---- what each replica publishes ------------------------------------------------------------------------------------

OTHER_CALL = "other"
TIMED_CALLS = ("step",)
"""The values of the label `call` of durations; each is a histogram of eleven series, so there are few."""

CALLS = (
    "ListWorlds", "GetWorld", "GetCapacity", "Report", "ReadReports",
    "open", "resume", "reset", "step", "imagine", "render", "fork", "save", "restore", "forget", "close", OTHER_CALL,
)  # fmt: skip
"""The values of the label `call` of the count by code."""

REPORT_OUTCOMES = ("accepted", "repeated", "refused")
STORE_STATS = ("sum", "max")
EPISODE_ENDS = ("terminated", "truncated")

RPC_DURATION = Name(
    "simservice_env_rpc_duration_seconds",
    "Time one call spent in the server, from its arrival.",
    ("world", "call"),
    "histogram",
)
RPC_TOTAL = Name(
    "simservice_env_rpc_total", "Calls answered, by gRPC status code.", ("world", "call", "code"), "counter"
)
JOURNAL_APPEND = Name(
    "simservice_journal_append_duration_seconds",
    "Time until the store had a request in its journal.",
    ("world",),
    "histogram",
)
RESTORES = Name("simservice_session_restores_total", "Sessions brought back from the store.", ("world",), "counter")
LANE_STEPS = Name("simservice_imagined_steps_total", "Environment steps made, over all lanes.", ("world",), "counter")
OOD_STEPS = Name(
    "simservice_ood_steps_total",
    "Of these, steps less sure than 99 % of the real ones that the world was held against.",
    ("world",),
    "counter",
)
EPISODES = Name("simservice_imagined_episodes_total", "Imagined episodes that ended.", ("world", "end"), "counter")
WORLD_ERRORS = Name(
    "simservice_world_errors_total", "Steps or starts of a lane whose numbers were not finite.", ("world",), "counter"
)
BATCH_SIZE = Name("simservice_tick_batch_lanes", "Lanes that one tick stepped together.", ("world",), "histogram")
TICK_DURATION = Name("simservice_tick_duration_seconds", "Time of one tick of the engine.", ("world",), "histogram")
LANES_IN_USE = Name("simservice_lanes_in_use", "Lanes held by sessions.", ("world",))
LANES_CAPACITY = Name("simservice_lanes_capacity", "Lanes there are room for.", ("world",))
SESSIONS_OPEN = Name("simservice_sessions_open", "Sessions with lanes in this process.", ("world",))
STORE_BYTES = Name(
    "simservice_session_store_bytes",
    "What sessions with lanes here occupy in the store: journal, snapshot and saved points; all together, the largest.",
    ("world", "stat"),
)
REQUESTS_WAITING = Name("simservice_requests_waiting", "Requests handed to the engine and not answered.", ("world",))
REPORTED_EPISODES = Name(
    "simservice_reported_episodes_total", "Real episodes that users reported.", ("world", "outcome"), "counter"
)
WORLD_INFO = Name("simservice_world_info", "The version that is served; always 1.", ("world", "model_version"))
REPLICA_START = Name(
    "simservice_replica_start_timestamp_seconds", "When the replica at this place began; it changes by a restart.",
    ("world",),
)  # fmt: skip
REPLICA_UP = Name("simservice_replica_up", "1: the replica's metrics were read; 0: they could not be.", ("world",))

# ---- how far a world can be trusted: what the monitor publishes ------------------------------------------------------

RETURN_GAP_STATS = ("max_abs", "mean")
RANK_METHODS = ("spearman", "pearson")
SOURCES = ("probe", "golden", "calibration", "fidelity", "reported")

_MODEL = ("world", "model_version")

ERROR_RATIO = Name(
    "simservice_fidelity_error_ratio",
    "Open-loop error h steps ahead over the spread of reality then; 1: no better than the average future.",
    (*_MODEL, "horizon"),
)
ALIVE_RATIO = Name(
    "simservice_fidelity_alive_ratio",
    "Share of real starts still alive h steps ahead; the error is over these.",
    (*_MODEL, "horizon"),
)
TRUST_HORIZON = Name(
    "simservice_trust_horizon_steps",
    "Steps ahead for which the upper bound of the error stays within tolerance.",
    _MODEL,
)
SERVED_HORIZON = Name(
    "simservice_served_horizon_steps", "Longest episode the service lets an agent imagine.", ("world",)
)
RETURN_GAP = Name(
    "simservice_return_gap_ratio",
    "Imagined minus real return of the probe policies over the range of real returns.",
    (*_MODEL, "stat"),
)
RETURN_GAP_FLOOR = Name(
    "simservice_return_gap_floor_ratio", "The largest return gap between two batches of reality.", _MODEL
)
RANK_CORRELATION = Name(
    "simservice_policy_rank_correlation",
    "Correlation of real and imagined mean returns over policies; absent below 8 independent ones.",
    (*_MODEL, "method"),
)
RANK_MMRV = Name(
    "simservice_policy_mmrv_ratio", "Mean maximum rank violation, gaps on the real side; absent below 8.", _MODEL
)
RANK_UNITS = Name("simservice_policy_rank_units", "Independent policies behind the ranking.", _MODEL)
REWARD_ERROR = Name("simservice_reward_error_ratio", "Mean absolute error of the reward over its spread.", _MODEL)
TERMINATION_F1 = Name("simservice_termination_f1_ratio", "F1 of the world's ends, one step ahead.", _MODEL)
TERMINATION_ECE = Name(
    "simservice_termination_ece_ratio", "Expected calibration error of the probability of an end.", _MODEL
)
FALSE_SUCCESS = Name("simservice_false_success_ratio", "Share of real failures that the world calls a success.", _MODEL)
OUT_OF_SUPPORT = Name(
    "simservice_out_of_support_ratio",
    "Share of imagined steps that are less sure than 99 % of real ones; 0.01: as reality.",
    _MODEL,
)
EXPLOITATION_GAP = Name(
    "simservice_exploitation_gap_ratio",
    "Imagined minus real return, over the return range, of a policy optimised inside the world.",
    _MODEL,
)
SCORE = Name(
    "simservice_fidelity_score",
    "A metric of the details page, by its name; intervals and conventions are in the report.",
    (*_MODEL, "metric"),
)
NOISE_RATIO = Name(
    "simservice_fidelity_noise_ratio",
    "A metric's distance from perfect over that between two halves of reality; 1: as good as reality.",
    (*_MODEL, "metric"),
)
LAST_SUCCESS = Name(
    "simservice_fidelity_last_success_timestamp_seconds", "When a probe last ran to its end.", ("world",)
)
REFERENCE_PROBES = Name(
    "simservice_fidelity_reference_probes", "Independent real episodes behind the newest figures.", ("world",)
)
REAL_TRANSITIONS = Name(
    "simservice_real_transitions_total",
    "Steps of the real environment that were spent.",
    ("world", "source"),
    "counter",
)
FIDELITY_INFO = Name(
    "simservice_fidelity_info",
    "What the figures were measured on and by which convention; always 1.",
    (*_MODEL, "data_hash", "convention"),
)

# ---- whether reality has moved: what the monitor publishes -----------------------------------------------------------

REALITY_KINDS = ("dynamics", "reward", "termination")
DRIFT_KINDS = (*REALITY_KINDS, "golden", "served_model", "policy_shift")
"""Of reality; of its exact replay; of the served world; of what users do. Only reality's are a reason to page."""

DRIFT_STATES = ("unknown", "calibrating", "ok", "suspect", "drift", "acknowledged")
CAUSES = ("nothing", "reality", "served_model", "policy", "rig", "policy_shift")
EVIDENCE_SOURCES = ("probe", "golden", "reported")
FAILURES = ("environment", "service", "budget", "other")

DRIFT_EVIDENCE = Name(
    "simservice_drift_log10_evalue", "Evidence of a change, log10 of an e-process; 0: none.", ("world", "kind")
)
DRIFT_THRESHOLD = Name("simservice_drift_threshold_log10", "Evidence at which a kind alarms.", ("world", "kind"))
DRIFT_ALARMS = Name("simservice_drift_alarms_total", "Alarms raised.", ("world", "kind"), "counter")
DRIFT_PROBES = Name(
    "simservice_drift_probes_total", "Real probes that counted as evidence.", ("world", "source"), "counter"
)
DRIFT_STATE = Name(
    "simservice_drift_state",
    "1 for the state that holds, 0 for the others; unknown while nothing new is heard of reality.",
    ("world", "state"),
)
DRIFT_CAUSE = Name("simservice_drift_cause", "1 for what moved by the evidence, 0 for the others.", ("world", "cause"))
DRIFT_EPOCH = Name("simservice_drift_epoch", "Changes acknowledged so far.", ("world",))
DETECTABLE_SHIFT = Name(
    "simservice_drift_detectable_shift_ratio",
    "Shift of a probe's score, in standard deviations, that a day of probes finds.",
    ("world",),
)
DETECTABLE_CHANGE = Name(
    "simservice_drift_detectable_change_ratio",
    "Smallest lasting change that a day of probes finds, over the usual change of a step; the worst dimension.",
    ("world", "kind"),
)
GOLDEN_DEVIATION = Name(
    "simservice_golden_replay_deviation_ratio",
    "Largest deviation of replayed real episodes over the tolerance; above 1 twice in a row alarms.",
    ("world",),
)
LAST_PROBE = Name(
    "simservice_drift_last_probe_timestamp_seconds", "When a probe of reality was last counted.", ("world",)
)
PROBE_INTERVAL = Name(
    "simservice_monitor_probe_interval_seconds", "Seconds from one probe of reality to the next.", ("world",)
)
PROBE_FAILURES = Name(
    "simservice_monitor_failures_total", "Probes that did not come to their end.", ("world", "reason"), "counter"
)
BUDGET_LEFT = Name(
    "simservice_monitor_real_steps_left", "Real steps that may be spent now; absent without a budget.", ("world",)
)
CORROBORATING_TENANTS = Name(
    "simservice_drift_corroborating_tenants", "Tenants whose reported episodes show a change, too.", ("world",)
)
MONITOR_WORLDS = Name("simservice_monitor_worlds", "Worlds that the monitor watches.")

SERVING_NAMES = (
    RPC_DURATION, RPC_TOTAL, JOURNAL_APPEND, RESTORES, LANE_STEPS, OOD_STEPS, EPISODES, WORLD_ERRORS, BATCH_SIZE,
    TICK_DURATION, LANES_IN_USE, LANES_CAPACITY, SESSIONS_OPEN, STORE_BYTES, REQUESTS_WAITING, REPORTED_EPISODES,
    WORLD_INFO, REPLICA_START,
)  # fmt: skip
FIDELITY_NAMES = (
    ERROR_RATIO, ALIVE_RATIO, TRUST_HORIZON, SERVED_HORIZON, RETURN_GAP, RETURN_GAP_FLOOR, RANK_CORRELATION, RANK_MMRV,
    RANK_UNITS, REWARD_ERROR, TERMINATION_F1, TERMINATION_ECE, FALSE_SUCCESS, OUT_OF_SUPPORT, EXPLOITATION_GAP, SCORE,
    NOISE_RATIO, LAST_SUCCESS, REFERENCE_PROBES, FIDELITY_INFO,
)  # fmt: skip
DRIFT_NAMES = (
    DRIFT_EVIDENCE, DRIFT_THRESHOLD, DRIFT_ALARMS, DRIFT_PROBES, DRIFT_STATE, DRIFT_CAUSE, DRIFT_EPOCH,
    DETECTABLE_SHIFT, DETECTABLE_CHANGE, GOLDEN_DEVIATION, LAST_PROBE, PROBE_INTERVAL, PROBE_FAILURES, BUDGET_LEFT,
    CORROBORATING_TENANTS,
)  # fmt: skip
NAMES = (*SERVING_NAMES, REPLICA_UP, *FIDELITY_NAMES, REAL_TRANSITIONS, *DRIFT_NAMES, MONITOR_WORLDS)
"""All of them. Series of replicas have the label `replica`, too: a place from 0 on, that a successor takes over."""
