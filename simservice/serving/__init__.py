"""The surfaces where worlds are served: a gRPC facade, plain or as replicas of Ray Serve behind HAProxy."""

import os

# Ray Serve reads these once, when it is imported; afterwards they change nothing.
os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
