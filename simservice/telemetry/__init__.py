"""What is published for Prometheus: names (names.py) and who publishes them; nobody else knows prometheus_client.

Rooms inside return counters; only the surfaces (serving, monitor) hold one of the objects here and publish them.
"""

from simservice.telemetry.drift import DriftMetrics, WatchReading
from simservice.telemetry.fidelity import FidelityMetrics, FidelityReading
from simservice.telemetry.names import NAMES, Name
from simservice.telemetry.pages import FleetMetrics, MetricsServer, Target, exposition, start_http
from simservice.telemetry.serving import Distribution, ServingMetrics, ServingReading

__all__ = [
    "NAMES",
    "Distribution",
    "DriftMetrics",
    "FidelityMetrics",
    "FidelityReading",
    "FleetMetrics",
    "MetricsServer",
    "Name",
    "ServingMetrics",
    "ServingReading",
    "Target",
    "WatchReading",
    "exposition",
    "start_http",
]
