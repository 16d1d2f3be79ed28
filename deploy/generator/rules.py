"""Recording rules: the stable names that dashboards and alerts read. Metric names come from the code alone."""

from __future__ import annotations

from simservice.telemetry import names

CALLER_FAULTS = (
    "OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE",
    "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
)  # fmt: skip
"""Codes that are no fault of the service: what callers did wrong, and what found no room (saturation alarms)."""

REALITY = "|".join((*names.REALITY_KINDS, "golden"))


def _quantile(share: float, name: names.Name, matching: str = "") -> str:
    return f"histogram_quantile({share:g}, sum by (world, le) (rate({name.name}_bucket{matching}[5m])))"


RECORDED: dict[str, str] = {
    "world:env_rpc_errors:ratio_rate5m": (
        f'(sum by (world) (rate({names.RPC_TOTAL.name}{{code!~"{"|".join(CALLER_FAULTS)}"}}[5m]))'
        f" or 0 * sum by (world) (rate({names.RPC_TOTAL.name}[5m])))"
        f" / (sum by (world) (rate({names.RPC_TOTAL.name}[5m])) > 0)"
        f" or 0 * sum by (world) (rate({names.RPC_TOTAL.name}[5m]))"
    ),
    "world:env_step_duration_seconds:p50_rate5m": _quantile(0.5, names.RPC_DURATION, '{call="step"}'),
    "world:env_step_duration_seconds:p99_rate5m": _quantile(0.99, names.RPC_DURATION, '{call="step"}'),
    "world:journal_append_duration_seconds:p99_rate5m": _quantile(0.99, names.JOURNAL_APPEND),
    "world:imagined_steps:rate5m": f"sum by (world) (rate({names.LANE_STEPS.name}[5m]))",
    "world:lanes_used:ratio": (
        f"sum by (world) ({names.LANES_IN_USE.name}) / sum by (world) ({names.LANES_CAPACITY.name})"
    ),
    "world:drift_log10_evalue:max": f'max by (world) ({names.DRIFT_EVIDENCE.name}{{kind=~"{REALITY}"}})',
    "world:trust_horizon_steps:min": f"min by (world) ({names.TRUST_HORIZON.name})",
}
"""By name: an expression."""
