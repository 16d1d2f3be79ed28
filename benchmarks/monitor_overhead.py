"""Whether a monitor costs steps anything: their p99 with a monitor at work and with the same one stopped, in pairs.

A service without Ray, a session of 64 lanes that steps without pause, and `simservice monitor` at many times its usual
rate beside them. Short blocks alternate between the monitor at work (SIGCONT) and stopped (SIGSTOP), so that whatever
else the machine does meets both alike. Prints both p99 and their ratio with a 95 % interval over
pairs, at that rate and at the usual one: a quantile's shift is, while small, proportional to the share of steps that
are disturbed. Exits with 1 when the interval's upper end at the usual rate is beyond the bar.

    python benchmarks/monitor_overhead.py [--blocks 40] [--seconds 1.0] [--every 5]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ["SIMSERVICE_EXTRA_FAMILIES"] = "toy:Toy"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])

from toy import Toy, ToyConfig, toy_spec  # noqa: E402
from toy_registered import MODULE_ID  # noqa: E402

from simservice.client.session import RemoteSession  # noqa: E402
from simservice.types import Array, Provenance  # noqa: E402
from simservice.worlds import checkpoint  # noqa: E402

LANES = 64
BAR = 1.02
USUAL_S = 60.0  # from one probe to the next
START_TIMEOUT_S = 180.0


def p99(times: list[Array]) -> float:
    """Milliseconds, over all steps of some blocks."""
    return float(np.quantile(np.concatenate(times), 0.99)) * 1e3


def block(session: RemoteSession, seconds: float) -> Array:
    """Seconds of each step within the time."""
    action = {"action": np.zeros(LANES, dtype=np.int64)}
    times = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        session.step(action)
        times.append(time.perf_counter() - began)
    return np.array(times)


def scraped(url: str) -> str:
    """The monitor's page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def probes(url: str) -> float:
    """Probes that counted so far."""
    found = re.search(r'simservice_drift_probes_total\{source="probe",world="toy"\} (\S+)', scraped(url))
    return float(found[1]) if found else 0.0


def processor_s(pid: int) -> float:
    """Of the process and its children, the real environment's among them."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    ticks = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def started(command: list[str], pattern: str) -> tuple[subprocess.Popen[str], str]:
    """A process and what it says of the address it can be reached at."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return process, found[0]
    raise RuntimeError(f"{command[3]} ended")


def measure(blocks: int, seconds: float, every: float) -> dict[str, float]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint.save(Toy(toy_spec(name="toy"), ToyConfig()), folder / "toy", provenance=Provenance(env_id=MODULE_ID))
        run = [sys.executable, "-m", "simservice"]
        service, address = started(
            [*run, "serve", str(folder / "toy"), "--local", "--port", "0", "--no-monitor"], r"127\.0\.0\.1:\d+"
        )
        size = ("--reference-probes", "100", "--calibration-probes", "200", "--fidelity-every", "0")
        watching = [*run, "monitor", "--address", address, "--folder", str(folder / "kept"), "--every", str(every)]
        monitor, url = started([*watching, *size], r"http://\S+/metrics")
        os.setpriority(os.PRIO_PROCESS, monitor.pid, 10)  # as beside `serve`
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while probes(url) < 2:
                if time.monotonic() > deadline:
                    raise RuntimeError("the monitor did not begin to probe")
                time.sleep(0.2)
            before, spent = probes(url), processor_s(monitor.pid)
            figures = alternate(address, monitor.pid, blocks, seconds)
            share = (processor_s(monitor.pid) - spent) / (blocks * seconds)  # of the time that it was not stopped
            usual = {f"usual_{name}": 1 + (figures[name] - 1) * every / USUAL_S for name in ("ratio", "ratio_high")}
            return {**figures, **usual, "core_share": share, "probes": probes(url) - before, "every_s": every}
        finally:
            monitor.send_signal(signal.SIGCONT)
            for process in (monitor, service):
                process.terminate()
                process.wait(30)


def alternate(address: str, pid: int, blocks: int, seconds: float) -> dict[str, float]:
    """Pairs of blocks, in turn first and second; the interval resamples pairs."""
    session = RemoteSession(address, "toy", num_envs=LANES)
    session.reset(seeds=np.arange(LANES, dtype=np.int64))
    block(session, seconds)
    pairs: list[tuple[Array, Array]] = []
    for number in range(blocks):
        found = {}
        for kind in (signal.SIGCONT, signal.SIGSTOP)[:: 1 if number % 2 else -1]:
            os.kill(pid, kind)
            found[kind] = block(session, seconds)
        pairs.append((found[signal.SIGCONT], found[signal.SIGSTOP]))
    os.kill(pid, signal.SIGCONT)
    session.close()
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(500):
        chosen = generator.integers(0, blocks, blocks)
        ratios.append(p99([pairs[i][0] for i in chosen]) / p99([pairs[i][1] for i in chosen]))
    on, off = p99([pair[0] for pair in pairs]), p99([pair[1] for pair in pairs])
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "p99_on_ms": on,
        "p99_off_ms": off,
        "ratio": on / off,
        "ratio_low": float(low),
        "ratio_high": float(high),
        "steps": float(sum(len(part) for pair in pairs for part in pair)),
    }


def main() -> int:
    """1 when the monitor costs more than the bar, beyond chance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between probes; 60 is usual")
    options = parser.parse_args()
    found = measure(options.blocks, options.seconds, options.every)
    interval = f"{found['ratio_low']:.3f} to {found['ratio_high']:.3f}"
    usual = f"{found['usual_ratio']:.3f} (up to {found['usual_ratio_high']:.3f})"
    print(
        f"p99 of a step of {LANES} lanes: {found['p99_on_ms']:.2f} ms with the monitor, {found['p99_off_ms']:.2f} ms "
        f"without; ratio {found['ratio']:.3f} ({interval}) at a probe every {options.every:g} s; at one every "
        f"{USUAL_S:g} s {usual}, bar {BAR}; "
        f"{found['steps']:.0f} steps, {found['probes']:.0f} probes; {found['core_share']:.1%} of a core"
    )
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))
    return int(found["usual_ratio_high"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
