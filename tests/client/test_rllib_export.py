"""A module's ONNX graph says what the module says, over every algorithm, encoder and reading; the rest is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from rllib_modules import built, config_of

from simservice.client.rllib.connectors import ScaledFrames, check_acting, reading
from simservice.client.rllib.export import export_policy
from simservice.errors import InvalidInput
from simservice.types import from_leaves, to_leaves

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:.*gputil.*")]

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
PICTURE = spaces.Box(-1, 1, (42, 42, 3), np.float32)
FRAME = spaces.Box(0, 255, (24, 24, 3), np.uint8)
NESTED = spaces.Dict(
    {
        "speed": spaces.Box(-1, 1, (2, 2), np.float64),
        "gear": spaces.Discrete(4),
        "at": spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Box(0, 9, (1,), np.int64)]),
    }
)
LEFT_RIGHT, PUSH = spaces.Discrete(3), spaces.Box(-2, 2, (2,), np.float32)
CONVOLUTIONS = {"conv_filters": [[16, 4, 2], [8, [4, 3], 2], [8, 3, 1]]}


def stacked(space, count=7):
    """`count` observations of a space as leaves."""
    space.seed(0)
    values = [to_leaves(space, space.sample(), "observation") for _ in range(count)]
    return {path: np.stack([value[path] for value in values]) for path in values[0]}


def one(leaves, row, space):
    """The observation of a row as Gymnasium has it."""
    return from_leaves(space, {path: array[row] for path, array in leaves.items()}, "observation")


def assert_the_graph_says_what_the_module_says(config):
    """Over observations that go through RLlib's own connectors one by one, to 1e-5."""
    torch.manual_seed(0)
    module, pipeline = built(config)
    with torch.no_grad():  # fresh heads give almost nothing, which any graph could do
        for parameter in module.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    space = config.observation_space
    read = reading(pipeline, space)
    graph = export_policy(module, read.observe)
    leaves = stacked(space)
    said = onnxruntime.InferenceSession(graph.model, providers=["CPUExecutionProvider"]).run([graph.head], leaves)[0]

    episodes = [SingleAgentEpisode(observation_space=space, action_space=config.action_space) for _ in range(7)]
    for row, episode in enumerate(episodes):
        episode.add_env_reset(one(leaves, row, space))
    batch = pipeline(rl_module=module, batch={}, episodes=episodes, explore=True, shared_data={})
    with torch.no_grad():
        if graph.head == "q_values":
            expected = module.compute_q_values(batch)["qf_preds"]
        else:
            expected = module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS]
    scale = max(1.0, expected.abs().max().item())  # bytes that are not scaled make large sums
    np.testing.assert_allclose(said, expected.numpy(), rtol=1e-5, atol=1e-5 * scale)
    assert np.ptp(said, axis=0).max() > 1e-3

    stored = np.stack([episode.get_observations(-1) for episode in episodes])
    np.testing.assert_allclose(read.stored(leaves), stored, rtol=1e-6)
    assert read.stored(leaves).dtype == stored.dtype
    assert read.space == pipeline.observation_space
    return graph, module


@pytest.mark.parametrize(("observed", "model"), [(VECTOR, {}), (PICTURE, CONVOLUTIONS)], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    ("algorithm", "action", "head", "distribution"),
    [
        ("ppo", LEFT_RIGHT, "action_dist_inputs", "categorical"),
        ("ppo", PUSH, "action_dist_inputs", "gaussian"),
        ("ppo", spaces.MultiDiscrete([2, 3]), "action_dist_inputs", "multi_categorical"),
        ("dqn", LEFT_RIGHT, "q_values", "epsilon_greedy"),
        ("sac", LEFT_RIGHT, "action_dist_inputs", "categorical"),
        ("sac", PUSH, "action_dist_inputs", "squashed_gaussian"),
    ],
)
def test_a_graph_says_what_its_module_says(algorithm, action, head, distribution, observed, model):
    graph, module = assert_the_graph_says_what_the_module_says(config_of(algorithm, observed, action, **model))
    assert (graph.head, graph.distribution) == (head, distribution)
    floats = [one.name for one in onnx.load_from_string(graph.model).graph.initializer if one.data_type == 1]
    assert sorted(graph.weights(module.get_state())) == sorted(floats)


@pytest.mark.parametrize(
    "model",
    [
        {"vf_share_layers": True, "fcnet_activation": "silu", "head_fcnet_hiddens": [16]},
        {"free_log_std": True},
        {"free_log_std": True, "log_std_clip_param": 0.01},
        {"fcnet_use_layernorm": True, "fcnet_activation": "elu"},
        {"fcnet_activation": "GELU"},
        {"fcnet_activation": "LeakyReLU", "fcnet_hiddens": [8]},
    ],
    ids=str,
)
def test_every_kind_of_layer_that_a_configuration_can_name_is_translated(model):
    assert_the_graph_says_what_the_module_says(config_of("ppo", VECTOR, PUSH, **model))


def test_values_without_dueling_is_translated():
    config = config_of("dqn", VECTOR, LEFT_RIGHT).training(dueling=False)
    assert_the_graph_says_what_the_module_says(config)


def test_frames_of_bytes_are_scaled_in_the_graph():
    model = {"conv_filters": [[8, 4, 2], [8, 4, 2]], "conv_activation": "tanh"}
    assert_the_graph_says_what_the_module_says(config_of("ppo", FRAME, LEFT_RIGHT, ScaledFrames, **model))


@pytest.mark.parametrize("space", [NESTED, FRAME, spaces.Discrete(5)], ids=["dict", "frame", "number"])
def test_flattened_observations_are_flattened_in_the_graph(space):
    assert_the_graph_says_what_the_module_says(config_of("ppo", space, LEFT_RIGHT, FlattenObservations))


def test_new_weights_fit_an_old_graph():
    module, pipeline = built(config_of("ppo", VECTOR, LEFT_RIGHT))
    graph = export_policy(module, reading(pipeline, VECTOR).observe)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape))
    fresh = export_policy(module, reading(pipeline, VECTOR).observe)
    assert graph.model != fresh.model
    assert graph.with_weights(graph.weights(module.get_state())) == fresh.model


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_recurrent_module_is_refused(algorithm):
    module, pipeline = built(config_of(algorithm, VECTOR, PUSH, use_lstm=True))
    with pytest.raises(InvalidInput, match=r"recurrent module \(use_lstm\).*SingleAgentEnvRunner"):
        export_policy(module, reading(pipeline, VECTOR).observe)


def test_a_distribution_of_values_is_refused():
    module, pipeline = built(config_of("dqn", VECTOR, LEFT_RIGHT).training(num_atoms=5, v_min=-1.0, v_max=1.0))
    with pytest.raises(InvalidInput, match="num_atoms: is 5"):
        export_policy(module, reading(pipeline, VECTOR).observe)


@pytest.mark.parametrize(
    ("connector", "name"),
    [
        (MeanStdFilter, "MeanStdFilter"),
        (PrevActionsPrevRewards, "PrevActionsPrevRewards"),
        (lambda: FlattenObservations(NESTED, LEFT_RIGHT, keys_to_remove=["gear"]), "FlattenObservations"),
    ],
)
def test_a_connector_that_has_no_translation_is_refused_by_name(connector, name):
    space = NESTED if name == "FlattenObservations" else VECTOR
    pipeline = built_pipeline(config_of("ppo", space, LEFT_RIGHT, connector))
    with pytest.raises(InvalidInput, match=f"env_to_module_connector: {name}.*SingleAgentEnvRunner"):
        reading(pipeline, space)


def built_pipeline(config):
    single = config.observation_space, config.action_space
    return config.build_env_to_module_connector(spaces={"__env__": single, "__env_single__": single})


def test_a_namesake_of_rllibs_connector_is_a_stranger():
    class FlattenObservations(ScaledFrames):  # whatever it does
        pass

    pipeline = built_pipeline(config_of("ppo", FRAME, LEFT_RIGHT, FlattenObservations))
    with pytest.raises(InvalidInput, match=r"test_rllib_export.*FlattenObservations runs Python"):
        reading(pipeline, FRAME)


@pytest.mark.parametrize("space", [FRAME, NESTED, spaces.Discrete(3)], ids=["frame", "dict", "number"])
def test_observations_that_networks_do_not_read_are_refused_with_the_connectors_that_help(space):
    pipeline = built_pipeline(config_of("ppo", space, LEFT_RIGHT))
    with pytest.raises(InvalidInput, match="ScaledFrames for frames, or FlattenObservations"):
        reading(pipeline, space)


def test_rllibs_own_way_of_acting_is_known_and_a_strangers_is_not():
    config = config_of("ppo", VECTOR, PUSH)
    single = VECTOR, PUSH
    spaces_ = {"__env__": single, "__env_single__": single}
    check_acting(config.build_module_to_env_connector(spaces=spaces_))
    config.env_runners(module_to_env_connector=lambda env=None, spaces=None: ScaledFrames())
    with pytest.raises(InvalidInput, match=r"module_to_env_connector: simservice.*ScaledFrames"):
        check_acting(config.build_module_to_env_connector(spaces={"__env__": single, "__env_single__": (FRAME, PUSH)}))
