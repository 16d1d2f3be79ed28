"""Gymnasium finds the environment, and a client needs nothing of a server."""

import subprocess
import sys

HEAVY = ("torch", "ray", "redis", "scipy", "minari", "h5py", "pandas", "prometheus_client", "typer")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_whole_client_needs_only_the_base_install():
    loaded = run(
        "import sys, simservice.client.env, simservice.client.vector_env, simservice.client.session, "
        f"simservice.client.channel; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_registering_loads_nothing_but_gymnasium():
    code = "import sys, simservice.client; print([name for name in ('grpc', 'google.protobuf') if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_the_environment_is_found_by_its_id_once_the_client_is_imported():
    assert "RemoteVectorEnv" in run(
        "import simservice.client, gymnasium; print(gymnasium.spec('simservice/World-v0').vector_entry_point)"
    )


def test_gymnasium_may_import_the_client_itself():
    code = (
        "import gymnasium\n"
        "try: gymnasium.make('simservice.client:simservice/World-v0', address='nonsense', world='x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert run(code).startswith("InvalidInput address: 'nonsense' is not host:port")


def test_registering_twice_changes_nothing_and_warns_of_nothing():
    code = "import warnings; warnings.simplefilter('error')\nimport simservice.client as c; c.register(); print('fine')"
    assert run(code).strip() == "fine"
