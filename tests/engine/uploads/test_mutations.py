"""Damaged files are refused in words, whatever is damaged, and kill no library that reads them."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FILES = 10_000


def test_thousands_of_damaged_files_end_in_typed_errors_and_kill_nothing():
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[2])])
    found = subprocess.run(
        [sys.executable, HERE / "mutating.py", "1", str(FILES)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, f"ended with {found.returncode}: {found.stderr[-2000:]}"
    seen = json.loads(found.stdout)
    assert set(seen) <= {"taken", "InvalidPolicy", "PolicyLimitExceeded"}, seen
    assert sum(seen.values()) == FILES
    assert seen["InvalidPolicy"] > FILES / 2
