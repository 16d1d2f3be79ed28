from simservice.protocol.v1 import world_pb2 as _world_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Luck(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LUCK_UNSPECIFIED: _ClassVar[Luck]
    LUCK_SAME: _ClassVar[Luck]
    LUCK_FRESH: _ClassVar[Luck]

class PolicyDistribution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_DISTRIBUTION_UNSPECIFIED: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_CATEGORICAL: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_MULTI_CATEGORICAL: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_GAUSSIAN: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_SQUASHED_GAUSSIAN: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_EPSILON_GREEDY: _ClassVar[PolicyDistribution]
    POLICY_DISTRIBUTION_DETERMINISTIC: _ClassVar[PolicyDistribution]
LUCK_UNSPECIFIED: Luck
LUCK_SAME: Luck
LUCK_FRESH: Luck
POLICY_DISTRIBUTION_UNSPECIFIED: PolicyDistribution
POLICY_DISTRIBUTION_CATEGORICAL: PolicyDistribution
POLICY_DISTRIBUTION_MULTI_CATEGORICAL: PolicyDistribution
POLICY_DISTRIBUTION_GAUSSIAN: PolicyDistribution
POLICY_DISTRIBUTION_SQUASHED_GAUSSIAN: PolicyDistribution
POLICY_DISTRIBUTION_EPSILON_GREEDY: PolicyDistribution
POLICY_DISTRIBUTION_DETERMINISTIC: PolicyDistribution

class ListWorldsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorldsReply(_message.Message):
    __slots__ = ("worlds",)
    WORLDS_FIELD_NUMBER: _ClassVar[int]
    worlds: _containers.RepeatedCompositeFieldContainer[_world_pb2.World]
    def __init__(self, worlds: _Optional[_Iterable[_Union[_world_pb2.World, _Mapping]]] = ...) -> None: ...

class GetWorldRequest(_message.Message):
    __slots__ = ("world",)
    WORLD_FIELD_NUMBER: _ClassVar[int]
    world: str
    def __init__(self, world: _Optional[str] = ...) -> None: ...

class GetWorldReply(_message.Message):
    __slots__ = ("world",)
    WORLD_FIELD_NUMBER: _ClassVar[int]
    world: _world_pb2.World
    def __init__(self, world: _Optional[_Union[_world_pb2.World, _Mapping]] = ...) -> None: ...

class GetCapacityRequest(_message.Message):
    __slots__ = ("world",)
    WORLD_FIELD_NUMBER: _ClassVar[int]
    world: str
    def __init__(self, world: _Optional[str] = ...) -> None: ...

class GetCapacityReply(_message.Message):
    __slots__ = ("replica", "world", "replicas", "tenant")
    class Room(_message.Message):
        __slots__ = ("lanes_limit", "lanes_active", "sessions_active", "largest_free")
        LANES_LIMIT_FIELD_NUMBER: _ClassVar[int]
        LANES_ACTIVE_FIELD_NUMBER: _ClassVar[int]
        SESSIONS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
        LARGEST_FREE_FIELD_NUMBER: _ClassVar[int]
        lanes_limit: int
        lanes_active: int
        sessions_active: int
        largest_free: int
        def __init__(self, lanes_limit: _Optional[int] = ..., lanes_active: _Optional[int] = ..., sessions_active: _Optional[int] = ..., largest_free: _Optional[int] = ...) -> None: ...
    class Use(_message.Message):
        __slots__ = ("sessions_active", "lanes_active", "sessions_limit", "lanes_limit", "steps_per_second_limit")
        SESSIONS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
        LANES_ACTIVE_FIELD_NUMBER: _ClassVar[int]
        SESSIONS_LIMIT_FIELD_NUMBER: _ClassVar[int]
        LANES_LIMIT_FIELD_NUMBER: _ClassVar[int]
        STEPS_PER_SECOND_LIMIT_FIELD_NUMBER: _ClassVar[int]
        sessions_active: int
        lanes_active: int
        sessions_limit: int
        lanes_limit: int
        steps_per_second_limit: float
        def __init__(self, sessions_active: _Optional[int] = ..., lanes_active: _Optional[int] = ..., sessions_limit: _Optional[int] = ..., lanes_limit: _Optional[int] = ..., steps_per_second_limit: _Optional[float] = ...) -> None: ...
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    WORLD_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    replica: GetCapacityReply.Room
    world: GetCapacityReply.Room
    replicas: int
    tenant: GetCapacityReply.Use
    def __init__(self, replica: _Optional[_Union[GetCapacityReply.Room, _Mapping]] = ..., world: _Optional[_Union[GetCapacityReply.Room, _Mapping]] = ..., replicas: _Optional[int] = ..., tenant: _Optional[_Union[GetCapacityReply.Use, _Mapping]] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("leaves", "ragged")
    class Ragged(_message.Message):
        __slots__ = ("leaves", "lengths")
        LEAVES_FIELD_NUMBER: _ClassVar[int]
        LENGTHS_FIELD_NUMBER: _ClassVar[int]
        leaves: _containers.RepeatedScalarFieldContainer[bytes]
        lengths: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, leaves: _Optional[_Iterable[bytes]] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    RAGGED_FIELD_NUMBER: _ClassVar[int]
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    ragged: _containers.RepeatedCompositeFieldContainer[Values.Ragged]
    def __init__(self, leaves: _Optional[_Iterable[bytes]] = ..., ragged: _Optional[_Iterable[_Union[Values.Ragged, _Mapping]]] = ...) -> None: ...

class PlayRequest(_message.Message):
    __slots__ = ("sequence", "open", "resume", "reset", "step", "render", "close", "fork", "save", "restore", "forget", "imagine", "timeout_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RENDER_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    SAVE_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    IMAGINE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    open: Open
    resume: Resume
    reset: Reset
    step: Step
    render: Render
    close: Close
    fork: Fork
    save: Save
    restore: Restore
    forget: Forget
    imagine: Imagine
    timeout_ms: int
    def __init__(self, sequence: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., render: _Optional[_Union[Render, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., fork: _Optional[_Union[Fork, _Mapping]] = ..., save: _Optional[_Union[Save, _Mapping]] = ..., restore: _Optional[_Union[Restore, _Mapping]] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ..., imagine: _Optional[_Union[Imagine, _Mapping]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("world", "num_envs", "autoreset_mode", "client_version", "open_key", "truncate_at_trust_horizon", "max_uncertainty", "uncertainty_penalty")
    WORLD_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPEN_KEY_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_AT_TRUST_HORIZON_FIELD_NUMBER: _ClassVar[int]
    MAX_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    world: str
    num_envs: int
    autoreset_mode: _world_pb2.AutoresetMode
    client_version: str
    open_key: bytes
    truncate_at_trust_horizon: bool
    max_uncertainty: float
    uncertainty_penalty: float
    def __init__(self, world: _Optional[str] = ..., num_envs: _Optional[int] = ..., autoreset_mode: _Optional[_Union[_world_pb2.AutoresetMode, str]] = ..., client_version: _Optional[str] = ..., open_key: _Optional[bytes] = ..., truncate_at_trust_horizon: _Optional[bool] = ..., max_uncertainty: _Optional[float] = ..., uncertainty_penalty: _Optional[float] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("mask", "seeds", "options_json", "context")
    MASK_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    mask: bytes
    seeds: bytes
    options_json: str
    context: Grounding
    def __init__(self, mask: _Optional[bytes] = ..., seeds: _Optional[bytes] = ..., options_json: _Optional[str] = ..., context: _Optional[_Union[Grounding, _Mapping]] = ...) -> None: ...

class Grounding(_message.Message):
    __slots__ = ("frames", "observation", "action")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    frames: int
    observation: Values
    action: Values
    def __init__(self, frames: _Optional[int] = ..., observation: _Optional[_Union[Values, _Mapping]] = ..., action: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("action",)
    ACTION_FIELD_NUMBER: _ClassVar[int]
    action: Values
    def __init__(self, action: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...

class Render(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fork(_message.Message):
    __slots__ = ("lanes", "copies", "luck", "seeds", "fork_key")
    LANES_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    LUCK_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    FORK_KEY_FIELD_NUMBER: _ClassVar[int]
    lanes: _containers.RepeatedScalarFieldContainer[int]
    copies: int
    luck: Luck
    seeds: bytes
    fork_key: bytes
    def __init__(self, lanes: _Optional[_Iterable[int]] = ..., copies: _Optional[int] = ..., luck: _Optional[_Union[Luck, str]] = ..., seeds: _Optional[bytes] = ..., fork_key: _Optional[bytes] = ...) -> None: ...

class Save(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Restore(_message.Message):
    __slots__ = ("point",)
    POINT_FIELD_NUMBER: _ClassVar[int]
    point: int
    def __init__(self, point: _Optional[int] = ...) -> None: ...

class Forget(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, points: _Optional[_Iterable[int]] = ...) -> None: ...

class Imagine(_message.Message):
    __slots__ = ("steps", "actions", "policy", "advance", "lanes", "copies", "luck", "seeds", "stop_at_end", "omit_observation", "omit_action", "omit_outputs")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ADVANCE_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    LUCK_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    STOP_AT_END_FIELD_NUMBER: _ClassVar[int]
    OMIT_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    OMIT_ACTION_FIELD_NUMBER: _ClassVar[int]
    OMIT_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    steps: int
    actions: Values
    policy: PolicyUse
    advance: bool
    lanes: _containers.RepeatedScalarFieldContainer[int]
    copies: int
    luck: Luck
    seeds: bytes
    stop_at_end: bool
    omit_observation: bool
    omit_action: bool
    omit_outputs: bool
    def __init__(self, steps: _Optional[int] = ..., actions: _Optional[_Union[Values, _Mapping]] = ..., policy: _Optional[_Union[PolicyUse, _Mapping]] = ..., advance: _Optional[bool] = ..., lanes: _Optional[_Iterable[int]] = ..., copies: _Optional[int] = ..., luck: _Optional[_Union[Luck, str]] = ..., seeds: _Optional[bytes] = ..., stop_at_end: _Optional[bool] = ..., omit_observation: _Optional[bool] = ..., omit_action: _Optional[bool] = ..., omit_outputs: _Optional[bool] = ...) -> None: ...

class PolicyUse(_message.Message):
    __slots__ = ("content_hash", "greedy", "epsilon", "clip_only")
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    CLIP_ONLY_FIELD_NUMBER: _ClassVar[int]
    content_hash: str
    greedy: bool
    epsilon: float
    clip_only: bool
    def __init__(self, content_hash: _Optional[str] = ..., greedy: _Optional[bool] = ..., epsilon: _Optional[float] = ..., clip_only: _Optional[bool] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlayReply(_message.Message):
    __slots__ = ("sequence", "opened", "reset", "stepped", "rendered", "closed", "error", "forked", "saved", "restored", "forgotten", "migrate", "imagined", "packed", "server_ns", "queue_ns", "wait_ns", "model_ns", "encode_ns")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STEPPED_FIELD_NUMBER: _ClassVar[int]
    RENDERED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FORKED_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    MIGRATE_FIELD_NUMBER: _ClassVar[int]
    IMAGINED_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    WAIT_NS_FIELD_NUMBER: _ClassVar[int]
    MODEL_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    opened: Opened
    reset: ResetDone
    stepped: Stepped
    rendered: Rendered
    closed: Closed
    error: Error
    forked: Forked
    saved: Saved
    restored: Restored
    forgotten: Forgotten
    migrate: Migrate
    imagined: Imagined
    packed: bytes
    server_ns: int
    queue_ns: int
    wait_ns: int
    model_ns: int
    encode_ns: int
    def __init__(self, sequence: _Optional[int] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., reset: _Optional[_Union[ResetDone, _Mapping]] = ..., stepped: _Optional[_Union[Stepped, _Mapping]] = ..., rendered: _Optional[_Union[Rendered, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., forked: _Optional[_Union[Forked, _Mapping]] = ..., saved: _Optional[_Union[Saved, _Mapping]] = ..., restored: _Optional[_Union[Restored, _Mapping]] = ..., forgotten: _Optional[_Union[Forgotten, _Mapping]] = ..., migrate: _Optional[_Union[Migrate, _Mapping]] = ..., imagined: _Optional[_Union[Imagined, _Mapping]] = ..., packed: _Optional[bytes] = ..., server_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., wait_ns: _Optional[int] = ..., model_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session", "world", "num_envs", "autoreset_mode", "last_sequence")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WORLD_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    AUTORESET_MODE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    session: str
    world: _world_pb2.World
    num_envs: int
    autoreset_mode: _world_pb2.AutoresetMode
    last_sequence: int
    def __init__(self, session: _Optional[str] = ..., world: _Optional[_Union[_world_pb2.World, _Mapping]] = ..., num_envs: _Optional[int] = ..., autoreset_mode: _Optional[_Union[_world_pb2.AutoresetMode, str]] = ..., last_sequence: _Optional[int] = ...) -> None: ...

class ResetDone(_message.Message):
    __slots__ = ("observation", "infos")
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    INFOS_FIELD_NUMBER: _ClassVar[int]
    observation: Values
    infos: _containers.RepeatedCompositeFieldContainer[Info]
    def __init__(self, observation: _Optional[_Union[Values, _Mapping]] = ..., infos: _Optional[_Iterable[_Union[Info, _Mapping]]] = ...) -> None: ...

class Stepped(_message.Message):
    __slots__ = ("observation", "rewards", "terminated", "truncated", "infos", "final", "final_observation")
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    INFOS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    observation: Values
    rewards: bytes
    terminated: bytes
    truncated: bytes
    infos: _containers.RepeatedCompositeFieldContainer[Info]
    final: bytes
    final_observation: Values
    def __init__(self, observation: _Optional[_Union[Values, _Mapping]] = ..., rewards: _Optional[bytes] = ..., terminated: _Optional[bytes] = ..., truncated: _Optional[bytes] = ..., infos: _Optional[_Iterable[_Union[Info, _Mapping]]] = ..., final: _Optional[bytes] = ..., final_observation: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...

class Info(_message.Message):
    __slots__ = ("name", "dtype", "shape", "value", "present")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    value: bytes
    present: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., value: _Optional[bytes] = ..., present: _Optional[bytes] = ...) -> None: ...

class Imagined(_message.Message):
    __slots__ = ("first", "steps", "last", "start", "observation", "action", "rewards", "terminated", "truncated", "began", "stopped", "final", "final_observation", "uncertainty", "distrusted", "world_error", "log_probability", "outputs")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    FINAL_OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    DISTRUSTED_FIELD_NUMBER: _ClassVar[int]
    WORLD_ERROR_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    first: int
    steps: int
    last: bool
    start: Values
    observation: Values
    action: Values
    rewards: bytes
    terminated: bytes
    truncated: bytes
    began: bytes
    stopped: bytes
    final: bytes
    final_observation: Values
    uncertainty: bytes
    distrusted: bytes
    world_error: bytes
    log_probability: bytes
    outputs: _containers.RepeatedCompositeFieldContainer[Info]
    def __init__(self, first: _Optional[int] = ..., steps: _Optional[int] = ..., last: _Optional[bool] = ..., start: _Optional[_Union[Values, _Mapping]] = ..., observation: _Optional[_Union[Values, _Mapping]] = ..., action: _Optional[_Union[Values, _Mapping]] = ..., rewards: _Optional[bytes] = ..., terminated: _Optional[bytes] = ..., truncated: _Optional[bytes] = ..., began: _Optional[bytes] = ..., stopped: _Optional[bytes] = ..., final: _Optional[bytes] = ..., final_observation: _Optional[_Union[Values, _Mapping]] = ..., uncertainty: _Optional[bytes] = ..., distrusted: _Optional[bytes] = ..., world_error: _Optional[bytes] = ..., log_probability: _Optional[bytes] = ..., outputs: _Optional[_Iterable[_Union[Info, _Mapping]]] = ...) -> None: ...

class Rendered(_message.Message):
    __slots__ = ("height", "width", "frames")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    frames: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., frames: _Optional[bytes] = ...) -> None: ...

class Forked(_message.Message):
    __slots__ = ("session", "num_envs")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUM_ENVS_FIELD_NUMBER: _ClassVar[int]
    session: str
    num_envs: int
    def __init__(self, session: _Optional[str] = ..., num_envs: _Optional[int] = ...) -> None: ...

class Saved(_message.Message):
    __slots__ = ("point",)
    POINT_FIELD_NUMBER: _ClassVar[int]
    point: int
    def __init__(self, point: _Optional[int] = ...) -> None: ...

class Restored(_message.Message):
    __slots__ = ("observation",)
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    observation: Values
    def __init__(self, observation: _Optional[_Union[Values, _Mapping]] = ...) -> None: ...

class Forgotten(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Migrate(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Closed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message", "details", "recoverable")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RECOVERABLE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    details: _containers.ScalarMap[str, str]
    recoverable: bool
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., recoverable: _Optional[bool] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("world", "episodes")
    WORLD_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    world: str
    episodes: _containers.RepeatedCompositeFieldContainer[RealEpisode]
    def __init__(self, world: _Optional[str] = ..., episodes: _Optional[_Iterable[_Union[RealEpisode, _Mapping]]] = ...) -> None: ...

class RealEpisode(_message.Message):
    __slots__ = ("id", "steps", "observation", "action", "rewards", "terminated", "truncated", "policy", "environment_version")
    ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    steps: int
    observation: Values
    action: Values
    rewards: bytes
    terminated: bool
    truncated: bool
    policy: str
    environment_version: str
    def __init__(self, id: _Optional[bytes] = ..., steps: _Optional[int] = ..., observation: _Optional[_Union[Values, _Mapping]] = ..., action: _Optional[_Union[Values, _Mapping]] = ..., rewards: _Optional[bytes] = ..., terminated: _Optional[bool] = ..., truncated: _Optional[bool] = ..., policy: _Optional[str] = ..., environment_version: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("accepted", "repeated")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    repeated: int
    def __init__(self, accepted: _Optional[int] = ..., repeated: _Optional[int] = ...) -> None: ...

class ReadReportsRequest(_message.Message):
    __slots__ = ("world", "after", "limit")
    WORLD_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    world: str
    after: int
    limit: int
    def __init__(self, world: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ReadReportsReply(_message.Message):
    __slots__ = ("reports", "last")
    class Report(_message.Message):
        __slots__ = ("reporter", "episode")
        REPORTER_FIELD_NUMBER: _ClassVar[int]
        EPISODE_FIELD_NUMBER: _ClassVar[int]
        reporter: str
        episode: RealEpisode
        def __init__(self, reporter: _Optional[str] = ..., episode: _Optional[_Union[RealEpisode, _Mapping]] = ...) -> None: ...
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[ReadReportsReply.Report]
    last: int
    def __init__(self, reports: _Optional[_Iterable[_Union[ReadReportsReply.Report, _Mapping]]] = ..., last: _Optional[int] = ...) -> None: ...

class PutPolicyRequest(_message.Message):
    __slots__ = ("world", "whole", "weights")
    class Whole(_message.Message):
        __slots__ = ("model", "distribution")
        MODEL_FIELD_NUMBER: _ClassVar[int]
        DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
        model: bytes
        distribution: PolicyDistribution
        def __init__(self, model: _Optional[bytes] = ..., distribution: _Optional[_Union[PolicyDistribution, str]] = ...) -> None: ...
    class Weights(_message.Message):
        __slots__ = ("graph_hash", "weights")
        GRAPH_HASH_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_FIELD_NUMBER: _ClassVar[int]
        graph_hash: str
        weights: _containers.RepeatedCompositeFieldContainer[PolicyWeight]
        def __init__(self, graph_hash: _Optional[str] = ..., weights: _Optional[_Iterable[_Union[PolicyWeight, _Mapping]]] = ...) -> None: ...
    WORLD_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    world: str
    whole: PutPolicyRequest.Whole
    weights: PutPolicyRequest.Weights
    def __init__(self, world: _Optional[str] = ..., whole: _Optional[_Union[PutPolicyRequest.Whole, _Mapping]] = ..., weights: _Optional[_Union[PutPolicyRequest.Weights, _Mapping]] = ...) -> None: ...

class PolicyWeight(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutPolicyReply(_message.Message):
    __slots__ = ("content_hash", "graph_hash", "weights", "rows_per_call", "ttl_s")
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    GRAPH_HASH_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_CALL_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    content_hash: str
    graph_hash: str
    weights: _containers.RepeatedCompositeFieldContainer[PolicyWeight]
    rows_per_call: int
    ttl_s: float
    def __init__(self, content_hash: _Optional[str] = ..., graph_hash: _Optional[str] = ..., weights: _Optional[_Iterable[_Union[PolicyWeight, _Mapping]]] = ..., rows_per_call: _Optional[int] = ..., ttl_s: _Optional[float] = ...) -> None: ...
