"""The verbs from a real environment to a trained world: collect, train, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simservice import __version__
from simservice.cli.options import Arguments, Root, Seed, Settings, load_policy
from simservice.cli.screen import bar, console, next_step


def collect(
    env: Annotated[str, typer.Argument(metavar="ENV", help="Gymnasium id of the real environment.")],
    steps: Annotated[int, typer.Option(min=1, help="Real steps to take, exactly.")] = 1500,
    seed: Seed = 0,
    policy: Annotated[str, typer.Option(help="random, sticky (random actions held for a while), or a policy file.")] = (
        "random"
    ),
    epsilon: Annotated[float, typer.Option(min=0, max=1, help="Share of random actions in a policy file's.")] = 0.0,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments stepped side by side.")] = 8,
    arg: Arguments = None,
    settings: Settings = None,
    dataset: Annotated[str | None, typer.Option(help="Id to write (default: simservice/ENV/POLICY-vN).")] = None,
    append: Annotated[str | None, typer.Option(help="Put the episodes of this dataset first.")] = None,
    root: Root = None,
) -> None:
    """Record a real environment into a Minari dataset, counting every step."""
    from simservice.data.collect import RealStepCounter
    from simservice.data.collect import collect as record
    from simservice.data.environments import parse_settings
    from simservice.data.episodes import coverage
    from simservice.data.minari import default_dataset_id, free_version, load_dataset, save_dataset

    env_kwargs, attributes = parse_settings(arg or [], "--arg"), parse_settings(settings or [], "--set")
    earlier = load_dataset(append, root) if append else None
    acting: Any = policy if policy in ("random", "sticky") else load_policy(policy, seed, greedy=False)
    name = policy if policy in ("random", "sticky") else Path(policy).stem + (f"-epsilon{epsilon:g}" if epsilon else "")
    counter = RealStepCounter()
    with bar("Real steps", steps) as advance:
        episodes = record(
            env,
            steps=steps,
            seed=seed,
            policy=acting,
            policy_name=name,
            epsilon=epsilon,
            num_envs=num_envs,
            env_kwargs=env_kwargs,
            attributes=attributes,
            budget=counter,
            progress=advance,
        )
    if dataset is None:
        earlier_id = earlier.dataset_id if earlier is not None else None
        dataset = free_version(earlier_id, root) if earlier_id else default_dataset_id(env, name, root)
    saved = save_dataset(
        episodes,
        dataset,
        env_id=env,
        env_kwargs=env_kwargs,
        env_attributes=attributes,
        root=root,
        real_steps=counter.steps,
        metadata={"seed": seed, "policy": name, "num_envs": num_envs, "code_version": __version__},
        append_to=earlier,
    )
    screen = console()
    screen.print(str(coverage(saved.episodes, saved.action_space)), highlight=False, markup=False)
    screen.print(f"[bold]{saved.dataset_id}[/bold]  {saved.real_steps} real steps, sha256 {saved.hash[:12]}")
    where = f" --root {root}" if root is not None else ""
    next_step(f"simservice train {saved.dataset_id}{where} --out runs/{_short(env)}")


def _short(env_id: str) -> str:
    """CartPole-v1: cartpole."""
    return env_id.rpartition("/")[2].rpartition(":")[2].partition("-v")[0].lower()
