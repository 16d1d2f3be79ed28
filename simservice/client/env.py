"""One served lane as a Gymnasium environment. Knows the session only, no connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from simservice.client.access import Tls, Token
from simservice.client.session import RemoteSession
from simservice.errors import InvalidInput
from simservice.protocol.packing import Compression
from simservice.protocol.ragged import is_ragged
from simservice.protocol.tensors import check_structure, conform
from simservice.types import SEED_LIMIT, Array, Caution, Context, Infos, Leaf, Leaves, from_leaves, to_leaves

Space = gym.Space[Any]


class RemoteEnv(gym.Env[Any, Any]):
    """An imagined environment behind an address; spaces, metadata and time limit come from the service.

    reset(options={"context": {"observation": ..., "action": ...}}) starts the episode in reality: `observation` holds
    the real frames, oldest first, as a batch of the observation space, `action` the actions between them, one fewer
    (left out for a single frame). Worlds without the capability "context" refuse it.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(
        self,
        address: str,
        world: str,
        *,
        render_mode: str | None = None,
        patience_s: float = 60.0,  # a lost connection is repaired for so long before SessionLost
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        token: str | None = None,  # of a tenant; None: SIMSERVICE_TOKEN
        tls: Tls = None,  # True, a CA file, or {"ca": ..., "certificate": ..., "key": ...}; None: as the address says
        truncate_at_trust_horizon: bool = False,  # episodes end (truncated) where the world is no longer trusted
        max_uncertainty: float | None = None,  # a step more uncertain than this is the episode's last, truncated
        uncertainty_penalty: float = 0.0,  # times each step's uncertainty is taken off its reward
        compression: Compression = "auto",  # of large replies from elsewhere; "always": on slow networks
    ) -> None:
        self._spec: EnvSpec | None = None
        # Gymnasium's single environments do not reset themselves, so a step after the end is an error there and here.
        self.session = RemoteSession(
            address,
            world,
            autoreset_mode=AutoresetMode.DISABLED,
            patience_s=patience_s,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            token=token,
            tls=tls,
            caution=as_caution(truncate_at_trust_horizon, max_uncertainty, uncertainty_penalty),
            compression=compression,
        )
        self.contract = self.session.contract
        spec = self.contract.spec
        self.metadata = world_metadata(self.session)  # type: ignore[misc]
        self.observation_space = spec.observation_space
        self.action_space = spec.action_space
        self.render_mode = check_render_mode(self.session, render_mode)

    @property
    def spec(self) -> EnvSpec | None:
        """What Gymnasium made this environment from; a token in it does not show itself."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = hide_token(spec)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation of a new episode; without a seed the lane's luck goes on where it was."""
        super().reset(seed=seed)
        rest = dict(options or {})
        context = as_context(self.session, rest.pop("context", None), lanes=None)
        result = self.session.reset(seeds=as_seeds([seed]), options=rest, context=context)
        return self._first_lane(result.observation), _lane_info(result.infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One imagined step. An action that is none is refused (InvalidInput) and nothing is stepped."""
        space = self.action_space
        check_structure(space, action, "action")
        parts = to_leaves(space, action, "action")
        batch = {leaf.path: conform(leaf, parts[leaf.path], ())[np.newaxis] for leaf in self.session.action_leaves}
        result = self.session.step(batch)
        return (
            self._first_lane(result.observation),
            float(result.reward[0]),
            bool(result.terminated[0]),
            bool(result.truncated[0]),
            _lane_info(result.infos),
        )

    def render(self) -> Any:
        """A picture of the present state, (height, width, 3) uint8; None without render_mode."""
        return None if self.render_mode is None else self.session.render()[0]

    def save(self) -> int:
        """Keeps what the environment is now; the number is for restore()."""
        return self.session.save()

    def restore(self, point: int) -> tuple[Any, dict[str, Any]]:
        """Goes back to a save(); returns the observation of then, as reset does."""
        return self._first_lane(self.session.restore(point)), {}

    def forget(self, *points: int) -> None:
        """Gives saved points up, so that there is room for others."""
        self.session.forget(*points)

    def close(self) -> None:
        """Frees the lane; closing twice is no error."""
        self.session.close()

    def _first_lane(self, observation: Leaves) -> Any:
        leaves = {path: array[0] for path, array in observation.items()}
        for leaf in self.session.observation_leaves:  # the value of a Discrete is a scalar, of a Box () an array
            if not leaf.shape and not _is_discrete(leaf):
                leaves[leaf.path] = np.asarray(leaves[leaf.path])
        return from_leaves(self.observation_space, leaves, "observation")


def _is_discrete(leaf: Leaf) -> bool:
    return isinstance(leaf.space, gym.spaces.Discrete)


def _lane_info(infos: Infos) -> dict[str, Any]:
    return {name: info.value[0] for name, info in infos.items() if info.present[0]}


# ---- shared with the vector environment ----------------------------------------------------------------------------


def hide_token(spec: EnvSpec | None) -> EnvSpec | None:
    """Makes the token among the arguments one that is not printed with them; it still works."""
    if spec is not None and isinstance(token := spec.kwargs.get("token"), str):
        spec.kwargs["token"] = Token(token)
    return spec


def world_metadata(session: RemoteSession) -> dict[str, Any]:
    """The world's own metadata and its render modes."""
    spec = session.contract.spec
    return {**spec.metadata, "render_modes": list(spec.render_modes)}


def check_render_mode(session: RemoteSession, render_mode: str | None) -> str | None:
    """The render mode, if the world has it; else the session is closed."""
    modes = session.contract.spec.render_modes
    if render_mode is not None and render_mode not in modes:
        session.close()
        has = f"has {', '.join(modes)}" if modes else "has no pictures"
        raise InvalidInput("render_mode", f"{render_mode!r} was asked for; world {session.world} {has}")
    return render_mode


def as_caution(truncate_at_trust_horizon: bool, max_uncertainty: float | None, uncertainty_penalty: float) -> Caution:
    """The caution as the wire takes it; whether the world can keep it is told by the server."""
    if not isinstance(truncate_at_trust_horizon, bool | np.bool_):  # "no" would be a yes
        raise InvalidInput("truncate_at_trust_horizon", f"{truncate_at_trust_horizon!r} is neither True nor False")
    numbers = {"max_uncertainty": max_uncertainty} if max_uncertainty is not None else {}
    for name, number in {**numbers, "uncertainty_penalty": uncertainty_penalty}.items():
        if isinstance(number, bool) or not isinstance(number, int | float | np.number):
            raise InvalidInput(name, f"{number!r} is no number")
    return Caution(
        truncate_at_trust_horizon=bool(truncate_at_trust_horizon),
        max_uncertainty=None if max_uncertainty is None else float(max_uncertainty),
        uncertainty_penalty=float(uncertainty_penalty),
    )


def as_seeds(seeds: list[int | None]) -> Array | None:
    """Seeds as the session takes them; None stays unseeded."""
    if all(seed is None for seed in seeds):
        return None
    for seed in seeds:
        if seed is not None and not 0 <= seed < SEED_LIMIT:
            raise InvalidInput("seed", f"{seed} is no seed; take 0 to {SEED_LIMIT - 1}")
    return np.array([-1 if seed is None else seed for seed in seeds], np.int64)


def as_context(session: RemoteSession, given: Any, lanes: int | None) -> Context | None:
    """The user's context with a lane axis; `lanes` None: given for one lane, without that axis."""
    if given is None or isinstance(given, Context):
        return given
    if not isinstance(given, Mapping) or "observation" not in given or set(given) - {"observation", "action"}:
        raise InvalidInput("context", "a mapping with `observation` and `action` is expected")
    spec = session.contract.spec
    observation = _frames(
        spec.observation_space, given["observation"], "observation", session.observation_leaves, lanes
    )
    if "action" in given:
        action = _frames(spec.action_space, given["action"], "action", session.action_leaves, lanes)
    else:
        action = {leaf.path: np.zeros((session.num_envs, 0, *leaf.shape), leaf.dtype) for leaf in session.action_leaves}
    context = Context(observation, action)
    frames = context.frames
    for path, array in {**observation, **action}.items():
        expected = frames if path in observation else frames - 1
        if array.shape[:2] != (session.num_envs, expected):
            raise InvalidInput(path, f"{array.shape[:2]} lanes and frames, ({session.num_envs}, {expected}) expected")
    return context


def _frames(space: Space, value: Any, root: str, leaves: tuple[Leaf, ...], lanes: int | None) -> Leaves:
    assert not is_ragged(space)  # the session took its leaves
    check_structure(space, value, root)
    parts = to_leaves(space, value, root)
    if lanes is None:
        parts = {path: array[np.newaxis] for path, array in parts.items()}
    for leaf in leaves:
        if parts[leaf.path].ndim != len(leaf.shape) + 2:
            raise InvalidInput(leaf.path, "frames need one axis before the space's own, and with lanes one more")
    return {leaf.path: conform(leaf, parts[leaf.path], None) for leaf in leaves}
