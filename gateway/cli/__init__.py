"""The `gateway` command: `commands.py`, a file for each larger subcommand, the walk-through of `make demo`.

May import every other package; imports them inside the functions, so that `gateway --help` starts at once.
"""

from gateway.cli.commands import main

__all__ = ["main"]
