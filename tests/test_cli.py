"""The command line as a user meets it: verbs that work together, quick help, quiet ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from dataclasses import replace
from pathlib import Path

import minari
import numpy as np
import pytest
import toy_reality
from gymnasium import spaces
from toy_registered import MODULE_ID

import simservice
from simservice.cli import fidelity, run
from simservice.client.policy import Policy
from simservice.client.session import RemoteSession
from simservice.data.collect import RealStepCounter, collect_episodes
from simservice.data.minari import list_datasets, load_dataset, save_dataset
from simservice.monitor.probe import probe
from simservice.monitor.reality import ProbeConfig
from simservice.monitor.report import ProbeReport
from simservice.serving.local import LocalServer

VERBS = (
    *("collect", "train", "evaluate", "serve", "token", "worlds", "probe"),
    *("monitor", "acknowledge", "report", "demo", "prove", "examine"),
)


def out(capsys: pytest.CaptureFixture[str], line: str, **names: object) -> str:
    """Runs a command that succeeds; what it wrote to stdout."""
    code = run([word.format(**names) for word in line.split()])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_the_version_is_told(capsys):
    assert out(capsys, "--version") == f"simservice {simservice.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    text = out(capsys, f"{verb} --help")
    assert f"simservice {verb}" in re.sub(r"\s+", " ", text.partition("Example:")[2])
    assert verb in out(capsys, "--help")


def test_help_loads_none_of_the_heavy_parts():
    code = textwrap.dedent("""
        import sys
        from simservice.cli import fidelity, run
        run(["--help"])
        run(["probe", "--help"])
        heavy = {"torch", "ray", "minari", "gymnasium", "grpc", "numpy", "redis", "scipy"}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "module", "extra"),
    [("collect CartPole-v1", "minari", "train"), ("serve x", "ray", "serve"), ("serve x --local", "torch", "train")],
)
def test_a_missing_package_names_the_extra_that_brings_it(line, module, extra):
    """In a process of its own, in which the package cannot be imported."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from simservice.cli import run; sys.exit(run({line.split()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: this command needs {module}")
    assert f"pip install 'simservice[{extra}]'" in done.stderr


def test_collect_writes_a_dataset_that_minari_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    text = out(capsys, "collect CartPole-v1 --steps 120 --seed 3 --set gravity=12 --arg max_episode_steps=30")
    assert "120 real steps" in text
    assert "next: simservice train simservice/cartpole-v1/random-v0" in text
    assert minari.load_dataset("simservice/cartpole-v1/random-v0").total_steps == 120
    dataset = load_dataset("simservice/cartpole-v1/random-v0")
    assert (dataset.env_attributes, dataset.env_kwargs) == ({"gravity": 12}, {"max_episode_steps": 30})
    assert dataset.metadata["seed"] == 3


def test_collecting_again_makes_a_new_version_and_append_joins_them(tmp_path, capsys):
    for seed in (0, 1):
        out(capsys, f"collect CartPole-v1 --steps 50 --seed {seed} --root {{root}}", root=tmp_path)
    out(
        capsys,
        "collect CartPole-v1 --steps 40 --append simservice/cartpole-v1/random-v0 --policy sticky --root {root}",
        root=tmp_path,
    )
    ids = [f"simservice/cartpole-v1/random-v{version}" for version in range(3)]
    assert list_datasets(tmp_path) == ids
    joined = load_dataset(ids[2], tmp_path)
    assert (joined.steps, joined.real_steps) == (90, 90)
    assert {episode.policy for episode in joined.episodes} == {"random", "sticky"}


def test_a_saved_policy_acts(tmp_path, capsys):
    layers = ((np.zeros((2, 4), np.float32), np.array([9.0, 0.0], np.float32)),)
    path = Policy(layers, spaces.Discrete(2)).save(tmp_path / "left.npz")
    out(capsys, "collect CartPole-v1 --steps 60 --policy {path} --root {root}", path=path, root=tmp_path)
    (dataset_id,) = list_datasets(tmp_path)
    assert dataset_id == "simservice/cartpole-v1/left-v0"
    assert sum(episode.action["action"].sum() for episode in load_dataset(dataset_id, tmp_path).episodes) <= 2


def test_a_token_is_made_with_the_line_that_a_tenants_file_holds_of_it(capsys):
    made = [out(capsys, "token") for _ in range(2)]
    assert made[0] != made[1]
    token = re.search(r": +(sim_\S{43})\n", made[0])
    assert token and f'"sha256:{hashlib.sha256(token[1].encode()).hexdigest()}"' in made[0]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ("--host 192.0.2.1", "--tls-cert and --tls-key"),
        ("--host 192.0.2.1 --tls-cert c.pem --tls-key k.pem", "--tenants or --tls-client-ca"),
        ("--local --tls-cert c.pem", "both --tls-cert and --tls-key"),
        ("--local --tenants nowhere.toml", "nowhere.toml cannot be read"),
    ],
)
def test_doors_that_cannot_be_meant_are_refused_before_anything_starts(flags, problem, toy_folder, capsys):
    assert run(["serve", str(toy_folder), *flags.split()]) == 2
    assert problem in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_worlds_lists_what_is_served(toy_server, capsys):
    text = out(capsys, "worlds --address {address}", address=toy_server.address)
    assert re.search(r"toy@[0-9a-f]{12}\s+toy", text)
    assert "noisy@" in text


def test_from_a_real_environment_to_a_measured_world_with_five_commands(tmp_path, capsys):
    """collect, train, evaluate, serve, probe; the linear control trains in no time and is a world like any other."""
    names = {"root": tmp_path / "data", "world": tmp_path / "pendulum", "id": "simservice/pendulum-v1/random-v0"}
    out(capsys, "collect Pendulum-v1 --steps 800 --num-envs 4 --root {root}", **names)
    text = out(capsys, "train {id} --family linear --root {root} --out {world}", **names)
    assert re.search(r"pendulum@[0-9a-f]{12}, linear, from 800 real steps", text)
    assert "nothing changes" in text
    assert f"next: simservice evaluate {names['world']} --root {names['root']}" in text
    text = out(capsys, "evaluate {world} {id} --root {root} --out {world}.json", **names)
    assert "held out of its training" in text
    assert json.loads((tmp_path / "pendulum.json").read_text())["k_step_nrmse"]["1"] < 0.2
    with LocalServer([names["world"]], store_url="memory:") as server:
        names["address"] = server.address
        assert re.search(r"linear\s+Pendulum-v1\s+800", out(capsys, "worlds --address {address}", **names))
        text = out(capsys, "probe pendulum --address {address} --episodes 2 --horizon 10 --windows 20", **names)
        assert re.search(r"against Pendulum-v1: 4 real episodes, 800 real steps", text)
        assert run(["probe", "pendulum", "--address", server.address, "--max-real-steps", "100"]) == 2
        assert "budget of 100" in capsys.readouterr().err


def test_a_wrong_setting_of_a_family_names_the_right_one(tmp_path, capsys):
    out(capsys, "collect CartPole-v1 --steps 60 --root {root}", root=tmp_path)
    line = f"train simservice/cartpole-v1/random-v0 --root {tmp_path} --out {tmp_path / 'w'}"
    for setting, words in (
        ("--option membres=3", "members"),
        ("--family ensembel", "ensemble"),
        ("--device tpu", "cuda"),
    ):
        assert run([*line.split(), *setting.split()]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def interrupt(process: subprocess.Popen[str], after: str) -> tuple[str, str]:
    """Ctrl-C once the process has said `after`; all it said."""
    assert process.stdout is not None
    said = ""
    while after not in said:
        line = process.stdout.readline()
        assert line, f"ended without saying {after!r}: {process.communicate()}"
        said += line
    process.send_signal(signal.SIGINT)
    try:
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return said + rest, errors


def test_a_local_service_serves_until_it_is_interrupted(toy_folder: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "simservice", "serve", str(toy_folder), "--local", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    address = re.search(r"serving toy@[0-9a-f]{12} at (127\.0\.0\.1:\d+)", first)
    assert address, first + process.stderr.read() if process.stderr else first
    session = RemoteSession(address[1], "toy", num_envs=3)
    session.reset(seeds=np.arange(3))
    assert session.step({"action": np.zeros(3, np.int64)}).reward.shape == (3,)
    session.close()
    _, errors = interrupt(process, "Ctrl-C ends it")
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_an_interrupted_recording_ends_quietly_and_leaves_no_half_dataset(tmp_path):
    code = (
        "import sys; from simservice.cli import run; import simservice.data.collect as c\n"
        "real = c.RealStepCounter.spend\n"
        "def spend(self, steps=1):\n"
        "    real(self, steps)\n"
        "    if self.steps == 200: print('recording', flush=True)\n"
        "c.RealStepCounter.spend = spend\n"
        f"sys.exit(run(['collect', 'CartPole-v1', '--steps', '50000000', '--root', {str(tmp_path)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, errors = interrupt(process, "recording")
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list_datasets(tmp_path) == []


def test_a_probe_that_fails_writes_nothing_down(toy_server, tmp_path, capsys):
    code = run(
        ["probe", "toy", "--address", toy_server.address, "--env", "Pendulum-v1", "--out", str(tmp_path / "r.json")]
    )
    assert code == 2  # another environment
    assert not (tmp_path / "r.json").exists()
    capsys.readouterr()


def test_a_report_is_shown_whole(toy_server, tmp_path, capsys):
    with toy_reality.registered() as env_id:
        text = out(
            capsys,
            "probe toy --address {address} --env {env_id} --episodes 4 --horizon 20 --windows 40 --out {path}",
            address=toy_server.address,
            env_id=env_id,
            path=tmp_path / "deep" / "report.json",
        )
    assert "trust horizon 20 steps (as far as was looked)" in text
    for words in ("random", "sticky", "termination F1", "95 % upper bound", "real steps"):
        assert words in text
    written = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert written["trust_horizon_steps"]["0.3"] == 20


def test_a_watch_publishes_on_a_page_until_it_is_interrupted(toy_server, capsys):
    """The page is read while the second round begins, which is then interrupted."""
    pages = []

    def measured(number: int, counter: RealStepCounter) -> ProbeReport:
        if number == 1:
            url = re.search(r"metrics at (\S+),", capsys.readouterr().out)
            assert url
            with urllib.request.urlopen(url[1]) as page:
                pages.append(page.read().decode())
            raise KeyboardInterrupt
        with toy_reality.registered() as env_id:
            config = ProbeConfig(env_id=env_id, episodes=3, horizon=10, windows=20, lanes=32)
            return probe(toy_server.address, "toy", config, counter=counter)

    with pytest.raises(KeyboardInterrupt):
        fidelity.watch_until_interrupted("toy", measured, RealStepCounter(), every_s=0.0, metrics_port=0)
    assert 'simservice_trust_horizon_steps{model_version="' in pages[0]
    assert re.search(r'simservice_real_transitions_total\{source="probe",world="toy"\} [1-9]', pages[0])


def test_evaluate_says_on_one_screen_whether_a_world_can_be_trusted(toy_folder, tmp_path, capsys):
    with toy_reality.registered() as env_id:
        line = "evaluate {world} --env {env} --episodes 4 --horizon 20 --windows 40 --out {out}"
        text = out(capsys, line, world=toy_folder, env=env_id, out=tmp_path / "found")
    assert "trust horizon" in text
    assert "exploitation gap" in text
    assert len(text.splitlines()) <= 40
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert found["verdict"]["headline"] in text
    assert len(found["lines"]) == 8
    assert found["verdict"]["headline"] in (tmp_path / "found" / "report.html").read_text()


def test_evaluate_says_that_a_folder_is_missing(capsys):
    assert run(["evaluate", "runs/nowhere"]) == 2
    assert "there is no folder runs/nowhere" in capsys.readouterr().err


def test_real_episodes_of_a_dataset_are_reported_and_counted_once(capsys, toy_server, tmp_path):
    with toy_reality.registered():
        episodes = collect_episodes(toy_reality.ENV_ID, episodes=3, seed=0)
    save_dataset([*episodes, replace(episodes[0], terminated=False, truncated=False)], "toy/real-v0",
                 env_id=MODULE_ID, root=tmp_path)  # fmt: skip
    line = "report toy toy/real-v0 --address {address} --root {root}"
    first = out(capsys, line, address=toy_server.address, root=tmp_path)
    assert first == "3 episodes accepted, 0 known before, 1 left out that had not ended\n"
    assert "0 episodes accepted, 3 known before" in out(capsys, line, address=toy_server.address, root=tmp_path)


def test_what_cannot_be_acknowledged_or_watched_so_is_told(capsys, tmp_path):
    assert run(["acknowledge", "toy", "--folder", str(tmp_path)]) == 2
    assert "no watch of 'toy'" in capsys.readouterr().err
    assert run(["monitor", "--env", "CartPole-v1"]) == 2
    assert "simservice monitor WORLD --env ID" in capsys.readouterr().err
