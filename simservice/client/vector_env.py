"""Many served lanes as one Gymnasium vector environment: a step of all is one message. Knows the session only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from simservice.client.access import Tls
from simservice.client.env import as_caution, as_context, as_seeds, check_render_mode, hide_token, world_metadata
from simservice.client.session import RemoteSession
from simservice.client.trajectories import Trajectories, as_imagine, as_trajectories
from simservice.errors import InvalidInput, SessionClosed
from simservice.protocol.packing import Compression
from simservice.protocol.tensors import check_structure
from simservice.types import Array, Infos, Leaves, PolicyUse, StepResult, from_leaves, to_leaves

OF_THE_NEW_EPISODE = frozenset({"trust_horizon"})
"""Infos that a reset gives. Under SAME_STEP an ending step carries them beside its own, which go to `final_info`."""


class RemoteVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` imagined environments behind an address; blocking.

    reset(options=...) takes "reset_mask" as Gymnasium defines it, and "context" as RemoteEnv does, with a lane axis
    before the frames. Every array that is returned is the caller's own.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        address: str,
        world: str,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
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
        self.closed = True  # until there is something to close
        self._spec: EnvSpec | None = None
        session = RemoteSession(
            address,
            world,
            num_envs=num_envs,
            autoreset_mode=as_mode(autoreset_mode),
            patience_s=patience_s,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            token=token,
            tls=tls,
            caution=as_caution(truncate_at_trust_horizon, max_uncertainty, uncertainty_penalty),
            compression=compression,
        )
        self._drive(session, render_mode)

    def _drive(self, session: RemoteSession, render_mode: str | None) -> None:
        self.session = session
        self.closed = False
        self.contract = session.contract
        self.num_envs = session.num_envs
        self.metadata = {**world_metadata(session), "autoreset_mode": session.autoreset_mode}
        self.render_mode = check_render_mode(session, render_mode)
        self.single_observation_space = self.contract.spec.observation_space
        self.single_action_space = self.contract.spec.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    @property
    def spec(self) -> EnvSpec | None:
        """What Gymnasium made this environment from; a token in it does not show itself."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = hide_token(spec)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """First observations; an int s seeds the lanes s, s + 1, ...; lanes without a seed go on with their luck."""
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        rest = dict(options or {})
        mask = self._mask(rest.pop("reset_mask", None))
        context = as_context(self.session, rest.pop("context", None), lanes=self.num_envs)
        result = self.session.reset(mask=mask, seeds=as_seeds(self._seeds(seed)), options=rest, context=context)
        return self._value(result.observation), _info_dict(result.infos)

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes. Actions that are none are refused (InvalidInput) and nothing is stepped."""
        space = self.single_action_space
        check_structure(space, actions, "action")
        result = self.session.step(to_leaves(space, actions, "action"))
        infos = _info_dict(result.infos) if result.final is None else self._same_step_infos(result, result.final)
        return self._value(result.observation), result.reward, result.terminated, result.truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """A picture of every lane, (height, width, 3) uint8 each; None without render_mode."""
        return None if self.render_mode is None else tuple(frame.copy() for frame in self.session.render())

    # ---- what only imagined environments can do ----------------------------------------------------------------------

    def fork(
        self,
        lanes: Sequence[int] | Array | None = None,
        copies: int = 1,
        *,
        luck: Literal["same", "fresh"] = "same",
        seeds: Sequence[int] | Array | None = None,
    ) -> RemoteVectorEnv:
        """New environments that begin where these (None: all) are now; number i * copies + j is copy j of lanes[i].

        They need no reset: what these showed last is what they show. See RemoteSession.fork for luck and seeds.
        """
        self._refuse_closed()
        session = self.session.fork(lanes, copies, luck=luck, seeds=seeds)
        child = RemoteVectorEnv.__new__(RemoteVectorEnv)
        child._spec = None
        child._drive(session, self.render_mode)
        return child

    def save(self) -> int:
        """Keeps what all environments are now; the number is for restore()."""
        self._refuse_closed()
        return self.session.save()

    def restore(self, point: int) -> tuple[Any, dict[str, Any]]:
        """Goes back to a save(); returns the observations of then, as reset does."""
        self._refuse_closed()
        return self._value(self.session.restore(point)), {}

    def forget(self, *points: int) -> None:
        """Gives saved points up, so that there is room for others."""
        self._refuse_closed()
        self.session.forget(*points)

    def imagine(
        self,
        actions: Any = None,
        *,
        policy: PolicyUse | str | None = None,
        steps: int | None = None,
        advance: bool = False,
        lanes: Sequence[int] | Array | None = None,
        copies: int = 1,
        luck: Literal["same", "fresh"] = "same",
        seeds: Sequence[int] | Array | None = None,
        stop_at_end: bool | None = None,  # None: where actions are given and the environments do not advance
        observation: bool = True,  # False, as the next two: left out of the answer
        action: bool = True,
        outputs: bool = True,
        deadline_s: float | None = None,
    ) -> Trajectories:
        """Many steps in one call, played on the server: by `actions` (steps, n, ...), or by a policy that was put.

        Copies of these environments play it (n = lanes * copies; number i * copies + j is copy j of lanes[i]) and are
        gone afterwards; or, with `advance`, these environments themselves, as if they had been stepped.
        """
        self._refuse_closed()
        space = self.single_action_space
        leaves = None
        if actions is not None:
            check_structure(space, actions, "action")
            leaves = to_leaves(space, actions, "action")
        command = as_imagine(
            leaves,
            policy,
            steps,
            advance=advance,
            lanes=lanes,
            copies=copies,
            luck=luck,
            seeds=seeds,
            stop_at_end=stop_at_end,
            observation=observation,
            action=action,
            outputs=outputs,
        )
        return as_trajectories(self.contract.spec, self.session.imagine(command, deadline_s))

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the lanes; called by close()."""
        self.session.close()

    def _refuse_closed(self) -> None:
        if self.closed:
            raise SessionClosed("environment")

    # ---- between Gymnasium's forms and the session's -----------------------------------------------------------------

    def _value(self, leaves: Leaves) -> Any:
        return from_leaves(self.single_observation_space, leaves, "observation")

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + lane for lane in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InvalidInput("seed", f"{len(seed)} seeds were given for {self.num_envs} environments")
        return [None if one is None else int(one) for one in seed]

    def _mask(self, mask: Any) -> Array | None:
        if mask is None:
            return None
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise InvalidInput("reset_mask", f"a numpy array of {self.num_envs} bool is expected")
        if not mask.any():
            raise InvalidInput("reset_mask", "it names no environment")
        return mask

    def _same_step_infos(self, result: StepResult, final: Array) -> dict[str, Any]:
        """Infos of a step in which the lanes of `final` ended and began again."""
        assert result.final_observation is not None
        lanes = np.flatnonzero(final)
        observations = np.full(self.num_envs, None, dtype=object)
        for lane in lanes:
            row = {path: array[lane].copy() for path, array in result.final_observation.items()}
            observations[lane] = from_leaves(self.single_observation_space, row, "observation")
        infos: dict[str, Any] = {}
        last: dict[str, Any] = {}
        for name, info in result.infos.items():
            of_the_end = np.zeros_like(final) if name in OF_THE_NEW_EPISODE else info.present & final
            if of_the_end.any():
                last |= _entry(name, info.value, of_the_end)
            going_on = info.present & ~of_the_end
            if going_on.any():
                infos |= _entry(name, info.value, going_on)
        return infos | {
            "final_obs": observations,
            "_final_obs": final.copy(),
            "final_info": last,
            "_final_info": final.copy(),
        }


def as_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """The autoreset mode by itself, by its value ("NextStep") or its name in any case ("next_step")."""
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        if mode in (known.value, known.name, known.name.lower()):
            return known
    names = ", ".join(known.name.lower() for known in AutoresetMode)
    raise InvalidInput("autoreset_mode", f"{mode!r} is none; there are: {names}")


def _info_dict(infos: Infos) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, info in infos.items():
        found |= _entry(name, info.value, info.present)
    return found


def _entry(name: str, value: Array, present: Array) -> dict[str, Any]:
    """One info and its mask; zeros where it is absent, as Gymnasium has it."""
    if not present.all():
        value = value.copy()
        value[~present] = 0
    return {name: value, f"_{name}": present}
