"""What an uploaded policy may cost, before it runs and while it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PolicyLimits:
    """Of one policy. A batch is run in calls of so many rows as keep within what one call may cost."""

    file_bytes: int = 16 * 2**20
    nodes: int = 2048
    tensors: int = 4096  # weights, constants and other arrays in the file
    rank: int = 8
    multiply_adds_per_row: int = 128 * 10**6  # fourteen times the network of Nature's DQN paper
    call_multiply_adds: int = 4 * 10**9  # about a tenth of a second of one core
    call_bytes: int = 64 * 2**20  # all that one call computes, together
    least_rows: int = 16  # of one call: what costs so much that fewer fit is refused
    most_rows: int = 1024
    output_bytes_per_row: int = 64 * 1024  # beside the head: they travel with every step of a rollout
    call_s: float = 5.0  # wall clock, in the serving process; then the policy is run no more
    trial_call_cpu_s: float = 1.0  # of one call of the most rows, while it is inspected
    inspection_cpu_s: int = 10
    inspection_s: float = 60.0  # wall clock: it is behind everything else on the machine
    inspection_bytes: int = 768 * 2**20  # of address space, beside what the libraries take
    inspections_waiting: int = 8  # in one process; whoever comes when there are more is told to come again
    inspections_waiting_per_tenant: int = 2
    inspecting_share: float = 0.1  # of a processor, for one tenant's files in one process; then they come later
    inspecting_burst_s: float = 4.0  # processor seconds before that counts: some hundred small networks
    loaded: int = 32  # sessions kept in the process, the last used ones
    loaded_bytes: int = 256 * 2**20
