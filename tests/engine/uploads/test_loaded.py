"""A loaded policy: calls from many threads, calls that fail or take too long, and what is then said of it."""

import threading
import time

import numpy as np
import onnx
import policy_files as files
import pytest
from onnx import TensorProto, helper

from simservice.engine.policies import TensorSpec
from simservice.engine.uploads.limits import PolicyLimits
from simservice.engine.uploads.record import PolicyGraph
from simservice.engine.uploads.runtime import has_device
from simservice.engine.uploads.session import OnnxPolicy, Watchdog
from simservice.engine.uploads.weights import WeightSpec, encode_weights
from simservice.errors import InvalidPolicy, PolicyLimitExceeded, PolicyQuarantined

OBSERVATION = TensorSpec("observation", (4,), np.dtype(np.float32))
HEAD = TensorSpec("action_dist_inputs", (3,), np.dtype(np.float32))
VALUE = TensorSpec("value", (), np.dtype(np.float32))


@pytest.fixture
def load():
    """Loads a file that nobody inspected: what an inspection would refuse is what these tests are about."""
    watchdog = Watchdog()

    def load(file, *, rows=1024, observation=OBSERVATION, outputs=(HEAD,), device="cpu", **limits):
        skeleton = onnx.load_from_string(file)
        weights = tuple(
            (
                WeightSpec(
                    one.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(one.data_type)).name, tuple(one.dims)
                ),
                one,
            )
            for one in skeleton.graph.initializer
        )
        del skeleton.graph.initializer[:]
        graph = PolicyGraph(
            distribution="categorical",
            inputs=(observation,),
            outputs=outputs,
            weights=tuple(spec for spec, _ in weights),
            rows_per_call=rows,
            skeleton=skeleton.SerializeToString(),
        )
        fragment = encode_weights((spec, one.raw_data) for spec, one in weights)
        return OnnxPolicy(graph, fragment, PolicyLimits(**limits), watchdog, device)

    yield load
    watchdog.stop()


def test_a_call_that_takes_too_long_is_ended_and_the_policy_runs_no_more(load):
    policy = load(files.unrolled(400), call_s=0.2)
    began = time.monotonic()
    with pytest.raises(PolicyLimitExceeded, match=r"seconds of one call: over 0\.2"):
        policy({"observation": np.zeros((1024, 4), np.float32)})
    assert time.monotonic() - began < 30.0
    with pytest.raises(PolicyQuarantined, match=r"run no more here, because a call of it took more than 0\.2 s"):
        policy({"observation": np.zeros((1, 4), np.float32)})


def test_others_are_run_on_while_one_is_ended(load):
    slow, quick = load(files.unrolled(400), call_s=0.2), load(files.mlp(value=False), call_s=60.0)
    failures = []

    def run_slow():
        try:
            slow({"observation": np.zeros((1024, 4), np.float32)})
        except PolicyLimitExceeded as error:
            failures.append(error)

    thread = threading.Thread(target=run_slow)
    thread.start()
    while thread.is_alive():
        assert quick({"observation": np.zeros((8, 4), np.float32)})["action_dist_inputs"].shape == (8, 3)
    assert len(failures) == 1


def test_a_call_that_fails_is_told_and_the_policy_runs_no_more(load):
    table = files.tensor("w", np.ones((5, 3), np.float32))
    file = files.model(
        [helper.make_node("Gather", ["w", "observation"], ["action_dist_inputs"])],
        [table],
        inputs=[helper.make_tensor_value_info("observation", TensorProto.INT64, ["N"])],
    ).SerializeToString()
    policy = load(file, observation=TensorSpec("observation", (), np.dtype(np.int64)))
    assert policy({"observation": np.int64([0, 4])})["action_dist_inputs"].shape == (2, 3)
    with pytest.raises(InvalidPolicy, match="onnxruntime cannot run the graph"):
        policy({"observation": np.int64([0, 5])})
    with pytest.raises(PolicyQuarantined, match="a call of it failed"):
        policy({"observation": np.int64([0])})


def test_calls_of_many_threads_do_not_meet(load):
    file = files.mlp()
    policy = load(file, outputs=(HEAD, VALUE), rows=16)
    wrong = []

    def use(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            observation = rng.standard_normal((rng.integers(1, 60), 4)).astype(np.float32)
            outputs = policy({"observation": observation})
            head, value = files.mlp_forward(file, observation)
            if not (
                np.allclose(outputs["action_dist_inputs"], head, atol=1e-5)
                and np.allclose(outputs["value"], value, atol=1e-5)
            ):
                wrong.append(seed)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_graphs_that_onnxruntime_does_not_load_are_refused(load):
    with pytest.raises(InvalidPolicy, match="onnxruntime cannot load the graph"):
        load(files.operator("Frobnicate"))


@pytest.mark.cuda
@pytest.mark.skipif(not has_device("cuda"), reason="needs a CUDA device and an onnxruntime that knows it")
def test_on_a_device_outputs_stay_there_and_are_the_same(load):
    import onnxruntime  # noqa: PLC0415 - its values are what this way takes

    file = files.mlp()
    policy = load(file, outputs=(HEAD, VALUE), device="cuda")
    assert policy.device == "cuda"
    observation = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    there = onnxruntime.OrtValue.ortvalue_from_numpy(observation, "cuda", 0)
    outputs = policy.run_on_device({"observation": there}, 64)
    assert outputs["action_dist_inputs"].device_name() == "cuda"
    head, value = files.mlp_forward(file, observation)
    np.testing.assert_allclose(outputs["action_dist_inputs"].numpy(), head, atol=1e-3)
    np.testing.assert_allclose(outputs["value"].numpy(), value, atol=1e-3)
    np.testing.assert_allclose(policy({"observation": observation})["value"], value, atol=1e-3)
