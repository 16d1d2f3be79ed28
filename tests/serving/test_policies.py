"""Policies over the wire: put whole, updated, found by every replica, run in rollouts; and what careless hands send."""

from __future__ import annotations

import random
from collections import Counter

import grpc
import gymnasium as gym
import numpy as np
import onnx
import policy_files as files
import pytest
from mutations import mutated
from onnx import numpy_helper
from serving_tools import tenants_file

from simservice.client.policies import PolicyShelf, put_policy
from simservice.errors import InvalidInput, InvalidPolicy, PolicyLimitExceeded, UnknownPolicy
from simservice.protocol.v1 import service_pb2 as pb
from simservice.serving.local import LocalConfig, LocalServer
from simservice.sessions.embedded import EmbeddedStore

LANES, STEPS = 5, 12


def weights_of(file):
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(file).graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def make(address, world="noisy", **more):
    return gym.make_vec("simservice/World-v0", num_envs=LANES, address=address, world=world, **more)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_a_rollout_by_a_policy_is_what_its_network_says_of_what_it_sees(toy_server):
    file = files.mlp()
    receipt = put_policy(toy_server.address, "noisy", model=file, distribution="categorical")
    env = make(toy_server.address)
    env.reset(seed=3)
    first = env.unwrapped.imagine(policy=receipt.content_hash, steps=STEPS)
    again = env.unwrapped.imagine(policy=receipt.content_hash, steps=STEPS)
    env.close()
    np.testing.assert_array_equal(first.action, again.action)  # a lane's luck is its own
    seen = np.concatenate([first.start[None], first.observation[:-1]])
    head, value = files.mlp_forward(file, seen.reshape(-1, 4))
    np.testing.assert_allclose(first.outputs["action_dist_inputs"].reshape(-1, 3), head, atol=1e-4)
    np.testing.assert_allclose(first.outputs["value"].reshape(-1), value, atol=1e-4)
    expected = np.take_along_axis(log_softmax(first.outputs["action_dist_inputs"]), first.action[..., None], -1)[..., 0]
    np.testing.assert_allclose(first.log_probability, expected, atol=1e-5)
    assert len(np.unique(first.action)) > 1


def test_what_one_server_took_another_one_updates_and_runs(toy_folder):
    file, other = files.mlp(seed=0), files.mlp(seed=1)
    config = LocalConfig(grace_s=0.1)
    with (
        EmbeddedStore() as store,
        LocalServer([toy_folder], store_url=store.url, config=config) as one,
        LocalServer([toy_folder], store_url=store.url, config=config) as two,
    ):
        whole = put_policy(one.address, "toy", model=file, distribution="categorical")
        updated = put_policy(two.address, "toy", graph_hash=whole.graph_hash, weights=weights_of(other))
        assert updated == put_policy(one.address, "toy", model=other, distribution="categorical")
        env = make(two.address, "toy")
        env.reset(seed=1)
        for content_hash, used in ((whole.content_hash, file), (updated.content_hash, other)):
            played = env.unwrapped.imagine(policy=content_hash, steps=2)
            head, _ = files.mlp_forward(used, played.start)
            np.testing.assert_allclose(played.outputs["action_dist_inputs"][0], head, atol=1e-4)
        env.close()


def test_a_foreign_policy_is_as_unknown_as_one_that_never_was(toy_folder, tmp_path):
    path, tokens = tenants_file(tmp_path, lab={}, shop={})
    config = LocalConfig(tenants=str(path), grace_s=0.1)
    with LocalServer([toy_folder], store_url="memory:", config=config) as server:
        receipt = put_policy(server.address, "toy", model=files.mlp(), distribution="categorical", token=tokens["lab"])
        shop = {"token": tokens["shop"]}
        with pytest.raises(UnknownPolicy):
            put_policy(server.address, "toy", graph_hash=receipt.graph_hash, weights=weights_of(files.mlp()), **shop)
        env = make(server.address, "toy", **shop)
        env.reset(seed=1)
        messages = set()
        for content_hash in (receipt.content_hash, "0" * 64):
            with pytest.raises(UnknownPolicy) as found:
                env.unwrapped.imagine(policy=content_hash, steps=2)
            messages.add(str(found.value).replace(content_hash[:12], "…"))
        assert len(messages) == 1
        env.close()


def test_the_receipt_lists_what_an_update_must_hold(toy_server):
    with PolicyShelf(toy_server.address, "toy") as shelf:
        receipt = shelf.put(files.mlp(), "categorical")
        arrays = weights_of(files.mlp())
        assert receipt.weights == {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        assert shelf.update(receipt.graph_hash, arrays).content_hash == receipt.content_hash
        with pytest.raises(InvalidPolicy, match="the update lacks 'value_weight'"):
            shelf.update(receipt.graph_hash, {name: a for name, a in arrays.items() if name != "value_weight"})
        with pytest.raises(InvalidPolicy, match="holds nan at element 0"):
            shelf.update(receipt.graph_hash, {**arrays, "bias_0": np.full(64, np.nan, np.float32)})
        with pytest.raises(InvalidInput, match=r"weights.graph_hash: 'abc' is no hash"):
            shelf.update("abc", arrays)


@pytest.mark.parametrize(
    ("file", "error", "words"),
    [
        (files.huge_loop, InvalidPolicy, "Loop"),
        (files.external_data, InvalidPolicy, "another file"),
        (lambda: files.strange_weight(np.nan), InvalidPolicy, "holds nan"),
        (lambda: files.large("ConstantOfShape"), PolicyLimitExceeded, "bytes computed in one call"),
        (lambda: files.mlp((5, 8, 3)), InvalidPolicy, r"float32 \(N, 5\)"),
        (lambda: bytes(33 * 2**20), PolicyLimitExceeded, "bytes of the file"),
    ],
)
def test_a_hostile_file_comes_back_as_a_typed_error(toy_folder, file, error, words):
    config = LocalConfig(grace_s=0.1)
    with LocalServer([toy_folder], store_url="memory:", config=config) as server, pytest.raises(error, match=words):
        put_policy(server.address, "toy", model=file(), distribution="categorical")


def test_a_distribution_that_does_not_fit_the_actions_is_named(toy_server):
    with pytest.raises(InvalidPolicy, match="gaussian distribution gives actions of a Box"):
        put_policy(toy_server.address, "toy", model=files.mlp(), distribution="gaussian")
    with pytest.raises(InvalidInput, match="did you mean 'categorical'"):
        put_policy(toy_server.address, "toy", model=files.mlp(), distribution="categoricl")
    with pytest.raises(InvalidInput, match="give either a model"):
        put_policy(toy_server.address, "toy")


def test_mutated_requests_never_end_in_internal_or_unknown(toy_folder, tmp_path):
    # Many tenants: one whose requests are refused again and again would wait for longer and longer.
    path, tokens = tenants_file(tmp_path, **{f"lab{number}": {} for number in range(20)})
    config = LocalConfig(tenants=str(path), grace_s=0.1)
    rng = random.Random(0)
    whole = pb.PutPolicyRequest.Whole(model=files.mlp((4, 2, 3)), distribution=pb.POLICY_DISTRIBUTION_CATEGORICAL)
    good = pb.PutPolicyRequest(world="toy", whole=whole).SerializeToString()
    weights = [
        pb.PolicyWeight(name=name, dtype=array.dtype.name, shape=array.shape, data=array.tobytes())
        for name, array in weights_of(whole.model).items()
    ]
    codes = Counter()
    with (
        LocalServer([toy_folder], store_url="memory:", config=config) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.unary_unary("/simservice.protocol.v1.WorldService/PutPolicy")
        for token in tokens.values():
            receipt = put_policy(server.address, "toy", model=whole.model, distribution="categorical", token=token)
            update = pb.PutPolicyRequest(
                world="toy", weights=pb.PutPolicyRequest.Weights(graph_hash=receipt.graph_hash, weights=weights)
            ).SerializeToString()
            for number in range(15):
                try:
                    call(
                        mutated(rng, update if number % 3 else good),
                        timeout=20,
                        metadata=[("authorization", f"Bearer {token}")],
                    )
                    codes["OK"] += 1
                except grpc.RpcError as error:
                    codes[error.code().name] += 1
    assert not {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"} & set(codes), codes
    assert codes["INVALID_ARGUMENT"] > 50


def test_who_was_refused_much_waits_and_is_then_heard(toy_folder):
    garbage = bytes(9 * 2**20)
    with (
        LocalServer([toy_folder], store_url="memory:", config=LocalConfig(grace_s=0.1)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.unary_unary("/simservice.protocol.v1.WorldService/PutPolicy")

        def refused(message, timeout):
            with pytest.raises(grpc.RpcError) as found:
                call(message, timeout=timeout)
            return found.value.code().name

        assert refused(garbage, 60) == "INVALID_ARGUMENT"  # counts for 18 MiB of the 32 that there are at first
        assert refused(garbage, 60) == "INVALID_ARGUMENT"  # for 36
        assert refused(garbage, 0.5) == "DEADLINE_EXCEEDED"
        assert put_policy(server.address, "toy", model=files.mlp(), distribution="categorical").content_hash
