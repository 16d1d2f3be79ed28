"""The client imports gRPC the way that waits least, and leaves alone what the user has decided."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from simservice.protocol.polling import KNOWN_TO, OLDER_WAY, VARIABLE

LOOK = f"""
import os, sys
seen = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            seen.append(os.environ.get("{VARIABLE}"))
sys.meta_path.insert(0, Finder())
import simservice.client.session
print(seen, os.environ.get("{VARIABLE}"))
"""


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ({}, f"['{OLDER_WAY}'] None"),
        ({VARIABLE: ""}, "[''] "),
        ({VARIABLE: "-tcp_rcv_lowat"}, "['-tcp_rcv_lowat'] -tcp_rcv_lowat"),
        ({"GRPC_ENABLE_FORK_SUPPORT": "1"}, "[None] None"),
    ],
)
def test_the_variable_is_there_for_the_import_alone_and_never_against_the_user(said, seen):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")} | said
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == seen.strip()
    assert done.stderr == ""


def test_this_release_of_grpc_is_one_that_is_known():
    """When it fails: see with benchmarks/step_latency.py what the release does, and tell polling.py."""
    assert version("grpcio").startswith(KNOWN_TO)
