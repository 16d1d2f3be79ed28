"""`python -m simservice`: the command line."""

from simservice.cli import main

main()
