"""The verbs from a real environment to a trained world: collect, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from simservice import __version__
from simservice.cli.evaluate import show_recorded
from simservice.cli.options import Arguments, Root, Seed, Settings, load_policy, pick_device
from simservice.cli.screen import bar, console, next_step, shares, spinner

if TYPE_CHECKING:
    from simservice.data.episodes import Dataset
    from simservice.training.trainer import Summary, TrainConfig


def collect(
    env: Annotated[str, typer.Argument(metavar="ENV", help="Gymnasium id of the real environment.")],
    steps: Annotated[int, typer.Option(min=1, help="Real steps to take, exactly.")] = 1500,
    seed: Seed = 0,
    policy: Annotated[str, typer.Option(help="random, sticky (random actions held for a while), or a policy file.")] = (
        "random"
    ),
    epsilon: Annotated[float, typer.Option(min=0, max=1, help="Share of random actions in a policy file's.")] = 0.0,
    num_envs: Annotated[
        int, typer.Option(min=1, help="Environments stepped side by side; more make shorter episodes.")
    ] = 1,
    frames: Annotated[
        int | None, typer.Option(min=8, help="Record the rendered picture, SIZE x SIZE, as the observation.")
    ] = None,
    stack: Annotated[int, typer.Option(min=1, help="Pictures stacked in an observation, with --frames.")] = 1,
    arg: Arguments = None,
    settings: Settings = None,
    dataset: Annotated[str | None, typer.Option(help="Id to write (default: simservice/ENV/POLICY-vN).")] = None,
    append: Annotated[str | None, typer.Option(help="Put the episodes of this dataset first.")] = None,
    root: Root = None,
) -> None:
    """Record a real environment into a Minari dataset, counting every step."""
    from simservice.data.collect import RealStepCounter
    from simservice.data.collect import collect as record
    from simservice.data.environments import as_frames, parse_settings
    from simservice.data.minari import check_target, default_dataset_id, free_version, load_dataset, save_dataset

    env_kwargs, attributes = parse_settings(arg or [], "--arg"), parse_settings(settings or [], "--set")
    earlier = load_dataset(append, root) if append else None
    acting: Any = policy if policy in ("random", "sticky") else load_policy(policy, seed, greedy=False)
    name = policy if policy in ("random", "sticky") else Path(policy).stem + (f"-epsilon{epsilon:g}" if epsilon else "")
    seen_as = f"{env}-frames{frames}" if frames is not None else env
    if frames is not None:
        env, env_kwargs = as_frames(env, env_kwargs, frames, stack)
    if dataset is None:
        earlier_id = earlier.dataset_id if earlier is not None else None
        dataset = free_version(earlier_id, root) if earlier_id else default_dataset_id(seen_as, name, root)
    target: dict[str, Any] = {
        "env_id": env,
        "env_kwargs": env_kwargs,
        "env_attributes": attributes,
        "append_to": earlier,
    }
    check_target(dataset, root, **target)
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
    saved = save_dataset(
        episodes,
        dataset,
        **target,
        root=root,
        real_steps=counter.steps,
        metadata={"seed": seed, "policy": name, "num_envs": num_envs, "code_version": __version__},
    )
    _show_dataset(saved, root)


def _show_dataset(saved: Dataset, root: Path | None) -> None:
    from simservice.data.episodes import coverage

    screen = console()
    screen.print(str(coverage(saved.episodes, saved.action_space)), highlight=False, markup=False)
    screen.print(f"[bold]{saved.dataset_id}[/bold]  {saved.real_steps} real steps, sha256 {saved.hash[:12]}")
    where = f" --root {root}" if root is not None else ""
    recorded = str(saved.env_kwargs.get("env_id") or saved.env_id or "world")  # pictures are named after what they show
    next_step(f"simservice train {saved.dataset_id}{where} --out runs/{_short(recorded)}")


def _short(env_id: str) -> str:
    """CartPole-v1: cartpole."""
    return env_id.rpartition("/")[2].rpartition(":")[2].partition("-v")[0].lower()


def train(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id or folder of a Minari dataset.")],
    family: Annotated[
        str, typer.Option(help="Kind of world: ensemble, rssm, diffusion, ...; or a control: persistence, linear.")
    ] = "ensemble",
    out: Annotated[Path | None, typer.Option(help="Folder of the world (default: runs/ENV).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the world (default: that of its folder).")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="NAME=VALUE", help="A setting of the family.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings of the family.")] = None,
    warm_start: Annotated[Path | None, typer.Option(help="Folder of an earlier world to go on from.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training of this folder.")
    ] = False,
    patience: Annotated[int, typer.Option(min=1, help="Evaluations without progress before a phase ends.")] = 6,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads; one is reproducible byte for byte.")] = 1,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch, by Ray Train; with cuda a GPU each.")
    ] = 1,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of losses; bfloat16 is for large worlds on cuda.")
    ] = "float32",
    compiler: Annotated[
        str, typer.Option("--compile", metavar="BACKEND", help="Fuse losses by torch.compile, e.g. with inductor.")
    ] = "",
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of figures over the updates.")] = None,
    seed: Seed = 0,
    root: Root = None,
) -> None:
    """Train a world on a dataset and write its folder; some episodes are held out to measure it."""
    import torch

    from simservice.config import parse_overrides, read_toml
    from simservice.data.minari import load_dataset
    from simservice.training.trainer import TrainConfig
    from simservice.training.trainer import train as learn

    torch.set_num_threads(threads)
    recorded = load_dataset(dataset, root)
    folder = out or Path("runs") / _short(recorded.env_id or "world")
    settings = TrainConfig(
        seed=seed,
        name=name,
        overrides={**(read_toml(config) if config is not None else {}), **parse_overrides(option or [])},
        warm_start=warm_start,
        resume=resume,
        patience=patience,
        device=pick_device(device),
        precision=precision,
        compiler=compiler,
        tensorboard=tensorboard,
    )
    try:
        if workers > 1:
            _train_together(recorded, family, folder, workers, settings)
        else:
            with shares() as progress:
                _show_summary(learn(recorded, family, folder, config=settings, progress=progress))
    except KeyboardInterrupt:
        console(error=True).print("interrupted; the same command with --resume goes on from here", style="dim")
        raise
    next_step(f"simservice evaluate {folder}{'' if root is None else f' --root {root}'}")


def _train_together(recorded: Dataset, family: str, folder: Path, workers: int, settings: TrainConfig) -> None:
    from simservice.serving.joint_training import train_on_workers
    from simservice.training.evaluate import evaluate_on
    from simservice.worlds import checkpoint

    with spinner() as tell:
        tell(f"{workers} workers train on {recorded.dataset_id}")
        figures = train_on_workers(recorded, family, folder, workers, config=settings)
    loaded = checkpoint.load(folder)
    console().print(
        f"[bold]{loaded.world.spec.full_name}[/bold], {family}, from {recorded.real_steps} real steps on {workers} "
        f"workers: {figures['updates']} updates, {figures['seconds']:.1f} s",
        highlight=False,
    )
    show_recorded(evaluate_on(loaded.world, loaded.provenance, recorded))


def _show_summary(summary: Summary) -> None:
    console().print(
        f"[bold]{summary.name}@{summary.version}[/bold], {summary.family}, from {summary.real_steps} real steps "
        f"({summary.training_steps} to learn from, {summary.held_out_steps} held out): "
        f"{summary.updates} updates, {summary.seconds:.1f} s",
        highlight=False,
    )
    show_recorded(summary.evaluation)
