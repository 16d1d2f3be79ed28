from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AutoresetMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTORESET_MODE_UNSPECIFIED: _ClassVar[AutoresetMode]
    AUTORESET_MODE_NEXT_STEP: _ClassVar[AutoresetMode]
    AUTORESET_MODE_SAME_STEP: _ClassVar[AutoresetMode]
    AUTORESET_MODE_DISABLED: _ClassVar[AutoresetMode]
AUTORESET_MODE_UNSPECIFIED: AutoresetMode
AUTORESET_MODE_NEXT_STEP: AutoresetMode
AUTORESET_MODE_SAME_STEP: AutoresetMode
AUTORESET_MODE_DISABLED: AutoresetMode

class Space(_message.Message):
    __slots__ = ("box", "discrete", "multi_discrete", "multi_binary", "text", "dict", "tuple", "sequence", "graph", "one_of")
    class Box(_message.Message):
        __slots__ = ("dtype", "shape", "low", "high", "unbounded_below", "unbounded_above")
        DTYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        LOW_FIELD_NUMBER: _ClassVar[int]
        HIGH_FIELD_NUMBER: _ClassVar[int]
        UNBOUNDED_BELOW_FIELD_NUMBER: _ClassVar[int]
        UNBOUNDED_ABOVE_FIELD_NUMBER: _ClassVar[int]
        dtype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        low: bytes
        high: bytes
        unbounded_below: bytes
        unbounded_above: bytes
        def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., low: _Optional[bytes] = ..., high: _Optional[bytes] = ..., unbounded_below: _Optional[bytes] = ..., unbounded_above: _Optional[bytes] = ...) -> None: ...
    class Discrete(_message.Message):
        __slots__ = ("n", "start", "dtype")
        N_FIELD_NUMBER: _ClassVar[int]
        START_FIELD_NUMBER: _ClassVar[int]
        DTYPE_FIELD_NUMBER: _ClassVar[int]
        n: int
        start: int
        dtype: str
        def __init__(self, n: _Optional[int] = ..., start: _Optional[int] = ..., dtype: _Optional[str] = ...) -> None: ...
    class MultiDiscrete(_message.Message):
        __slots__ = ("dtype", "shape", "nvec", "start")
        DTYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        NVEC_FIELD_NUMBER: _ClassVar[int]
        START_FIELD_NUMBER: _ClassVar[int]
        dtype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        nvec: bytes
        start: bytes
        def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., nvec: _Optional[bytes] = ..., start: _Optional[bytes] = ...) -> None: ...
    class MultiBinary(_message.Message):
        __slots__ = ("shape", "flat")
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        FLAT_FIELD_NUMBER: _ClassVar[int]
        shape: _containers.RepeatedScalarFieldContainer[int]
        flat: bool
        def __init__(self, shape: _Optional[_Iterable[int]] = ..., flat: _Optional[bool] = ...) -> None: ...
    class Text(_message.Message):
        __slots__ = ("min_length", "max_length", "characters")
        MIN_LENGTH_FIELD_NUMBER: _ClassVar[int]
        MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
        CHARACTERS_FIELD_NUMBER: _ClassVar[int]
        min_length: int
        max_length: int
        characters: str
        def __init__(self, min_length: _Optional[int] = ..., max_length: _Optional[int] = ..., characters: _Optional[str] = ...) -> None: ...
    class Dict(_message.Message):
        __slots__ = ("entries",)
        class Entry(_message.Message):
            __slots__ = ("key", "space")
            KEY_FIELD_NUMBER: _ClassVar[int]
            SPACE_FIELD_NUMBER: _ClassVar[int]
            key: str
            space: Space
            def __init__(self, key: _Optional[str] = ..., space: _Optional[_Union[Space, _Mapping]] = ...) -> None: ...
        ENTRIES_FIELD_NUMBER: _ClassVar[int]
        entries: _containers.RepeatedCompositeFieldContainer[Space.Dict.Entry]
        def __init__(self, entries: _Optional[_Iterable[_Union[Space.Dict.Entry, _Mapping]]] = ...) -> None: ...
    class Tuple(_message.Message):
        __slots__ = ("spaces",)
        SPACES_FIELD_NUMBER: _ClassVar[int]
        spaces: _containers.RepeatedCompositeFieldContainer[Space]
        def __init__(self, spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ...) -> None: ...
    class Sequence(_message.Message):
        __slots__ = ("element", "stacked")
        ELEMENT_FIELD_NUMBER: _ClassVar[int]
        STACKED_FIELD_NUMBER: _ClassVar[int]
        element: Space
        stacked: bool
        def __init__(self, element: _Optional[_Union[Space, _Mapping]] = ..., stacked: _Optional[bool] = ...) -> None: ...
    class Graph(_message.Message):
        __slots__ = ("node", "edge")
        NODE_FIELD_NUMBER: _ClassVar[int]
        EDGE_FIELD_NUMBER: _ClassVar[int]
        node: Space
        edge: Space
        def __init__(self, node: _Optional[_Union[Space, _Mapping]] = ..., edge: _Optional[_Union[Space, _Mapping]] = ...) -> None: ...
    class OneOf(_message.Message):
        __slots__ = ("spaces",)
        SPACES_FIELD_NUMBER: _ClassVar[int]
        spaces: _containers.RepeatedCompositeFieldContainer[Space]
        def __init__(self, spaces: _Optional[_Iterable[_Union[Space, _Mapping]]] = ...) -> None: ...
    BOX_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_DISCRETE_FIELD_NUMBER: _ClassVar[int]
    MULTI_BINARY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DICT_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    ONE_OF_FIELD_NUMBER: _ClassVar[int]
    box: Space.Box
    discrete: Space.Discrete
    multi_discrete: Space.MultiDiscrete
    multi_binary: Space.MultiBinary
    text: Space.Text
    dict: Space.Dict
    tuple: Space.Tuple
    sequence: Space.Sequence
    graph: Space.Graph
    one_of: Space.OneOf
    def __init__(self, box: _Optional[_Union[Space.Box, _Mapping]] = ..., discrete: _Optional[_Union[Space.Discrete, _Mapping]] = ..., multi_discrete: _Optional[_Union[Space.MultiDiscrete, _Mapping]] = ..., multi_binary: _Optional[_Union[Space.MultiBinary, _Mapping]] = ..., text: _Optional[_Union[Space.Text, _Mapping]] = ..., dict: _Optional[_Union[Space.Dict, _Mapping]] = ..., tuple: _Optional[_Union[Space.Tuple, _Mapping]] = ..., sequence: _Optional[_Union[Space.Sequence, _Mapping]] = ..., graph: _Optional[_Union[Space.Graph, _Mapping]] = ..., one_of: _Optional[_Union[Space.OneOf, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_num_envs", "max_message_bytes", "idle_ttl_s", "replies_kept", "max_context_frames", "lane_bytes", "snapshot_lane_bytes", "max_points", "max_points_bytes", "deadline_s", "max_rollout_steps", "max_rollout_lanes", "max_rollout_bytes", "rollout_deadline_s")
    MAX_NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IDLE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    REPLIES_KEPT_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    LANE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_LANE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_POINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_POINTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_ROLLOUT_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_ROLLOUT_LANES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROLLOUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    max_num_envs: int
    max_message_bytes: int
    idle_ttl_s: int
    replies_kept: int
    max_context_frames: int
    lane_bytes: int
    snapshot_lane_bytes: int
    max_points: int
    max_points_bytes: int
    deadline_s: int
    max_rollout_steps: int
    max_rollout_lanes: int
    max_rollout_bytes: int
    rollout_deadline_s: int
    def __init__(self, max_num_envs: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., idle_ttl_s: _Optional[int] = ..., replies_kept: _Optional[int] = ..., max_context_frames: _Optional[int] = ..., lane_bytes: _Optional[int] = ..., snapshot_lane_bytes: _Optional[int] = ..., max_points: _Optional[int] = ..., max_points_bytes: _Optional[int] = ..., deadline_s: _Optional[int] = ..., max_rollout_steps: _Optional[int] = ..., max_rollout_lanes: _Optional[int] = ..., max_rollout_bytes: _Optional[int] = ..., rollout_deadline_s: _Optional[int] = ...) -> None: ...

class World(_message.Message):
    __slots__ = ("name", "version", "family", "observation_space", "action_space", "max_episode_steps", "render_modes", "metadata_json", "capabilities", "autoreset_modes", "limits", "provenance_json", "trust_horizon_steps", "server_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    MAX_EPISODE_STEPS_FIELD_NUMBER: _ClassVar[int]
    RENDER_MODES_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_JSON_FIELD_NUMBER: _ClassVar[int]
    TRUST_HORIZON_STEPS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    family: str
    observation_space: Space
    action_space: Space
    max_episode_steps: int
    render_modes: _containers.RepeatedScalarFieldContainer[str]
    metadata_json: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    autoreset_modes: _containers.RepeatedScalarFieldContainer[AutoresetMode]
    limits: Limits
    provenance_json: str
    trust_horizon_steps: int
    server_version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., family: _Optional[str] = ..., observation_space: _Optional[_Union[Space, _Mapping]] = ..., action_space: _Optional[_Union[Space, _Mapping]] = ..., max_episode_steps: _Optional[int] = ..., render_modes: _Optional[_Iterable[str]] = ..., metadata_json: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., autoreset_modes: _Optional[_Iterable[_Union[AutoresetMode, str]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., provenance_json: _Optional[str] = ..., trust_horizon_steps: _Optional[int] = ..., server_version: _Optional[str] = ...) -> None: ...
