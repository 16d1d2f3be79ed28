"""The wheel, as a user gets it: installed alone in a clean environment it steps a remote world."""

import subprocess
import sys
import textwrap
import venv

import pytest

STEP_A_WORLD = textwrap.dedent(
    """
    import sys
    import gymnasium as gym

    envs = gym.make_vec("simservice.client:simservice/World-v0", num_envs=3, vectorization_mode="vector_entry_point",
                        address=sys.argv[1], world="toy")
    observation, info = envs.reset(seed=7)
    for _ in range(5):
        observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    assert observation in envs.observation_space, observation
    envs.close()

    env = gym.make("simservice.client:simservice/World-v0", address=sys.argv[1], world="toy")
    env.reset(seed=7)
    env.step(env.action_space.sample())
    env.close()
    print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "ray", "redis", "scipy", "minari"}))
    """
)


def run(*command, **kwargs):
    """A command's standard output; what it printed is in the failure if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, **kwargs)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory, request):
    """The interpreter of a new environment that holds the wheel and its base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building writes beside the sources
    root = request.config.rootpath
    tracked = run("git", "-C", root, "ls-files", "pyproject.toml", "README.md", "LICENSE", "simservice").splitlines()
    for name in tracked:
        if not (root / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((root / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *folder.glob("*.whl"))
    return python


@pytest.mark.timeout(600)
def test_the_wheel_with_its_base_dependencies_steps_a_remote_world(clean_python, toy_server, tmp_path):
    loaded = run(clean_python, "-c", STEP_A_WORLD, toy_server.address, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert loaded.strip() == "[]", f"the client loaded {loaded}"


def test_the_clean_environment_holds_the_base_dependencies_only(clean_python):
    listed = run(clean_python, "-m", "pip", "list", "--format=freeze").lower()
    installed = {line.partition("==")[0] for line in listed.splitlines()}
    assert {"simservice", "numpy", "gymnasium", "grpcio", "protobuf"} <= installed
    assert not installed & {"torch", "ray", "redis", "scipy", "typer", "prometheus-client"}


def test_a_verb_whose_extra_is_missing_says_what_to_install(clean_python, tmp_path):
    done = subprocess.run(
        [str(clean_python), "-m", "simservice", "--help"], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "pip install" in done.stderr and "simservice[" in done.stderr and "Traceback" not in done.stderr
