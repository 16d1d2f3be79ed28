"""The committed protobuf code is what the protos give."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted(ROOT.glob("protos/simservice/protocol/v1/*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    out = tmp_path_factory.mktemp("generated")
    flags = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *flags, *PROTOS], check=True)
    return out / "simservice/protocol/v1"


def test_the_committed_code_is_what_the_protos_give(generated):
    committed = ROOT / "simservice/protocol/v1"
    names = {path.name for path in generated.iterdir()}
    assert names == {path.name for path in committed.iterdir() if path.is_file()} - {"__init__.py"}
    for name in sorted(names):
        assert (generated / name).read_text() == (committed / name).read_text(), f"{name} is stale: run make protos"
