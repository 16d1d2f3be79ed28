"""The command line: `simservice VERB`. Does no work of its own."""

from simservice.cli.entry import main, run

__all__ = ["main", "run"]
