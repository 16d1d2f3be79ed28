"""Debian's Prometheus for the tests: a clear skip on a laptop without it, a failure in CI unless .ci/run said why."""

import os
import shutil

import pytest


def prometheus_tool(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed; apt-get install prometheus brings it"
        if os.environ.get("CI") and not os.environ.get("SIMSERVICE_WITHOUT_PROMETHEUS"):
            pytest.fail(message)
        pytest.skip(message)
    return found
