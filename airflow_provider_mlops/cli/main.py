"""The console script ``mlops``. It imports nothing heavy: a command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from airflow_provider_mlops import __version__
from airflow_provider_mlops.cli.commands import COMMANDS
from airflow_provider_mlops.errors import MlopsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_mlops.cli.commands import Command

__all__ = ["execute", "main"]

_FAILED = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command that *arguments*, by default those of the process, name.

    :return: 0 when all is well, 1 when something was found, 2 when the command could not do its work.
    """
    parser = argparse.ArgumentParser(prog="mlops", description="Continuous training on Apache Airflow.")
    parser.add_argument("--version", action="version", version=f"airflow-provider-mlops {__version__}")
    _add(parser, COMMANDS)
    parsed = parser.parse_args(arguments)
    return execute(parsed.function, parsed)


def _add(parser: argparse.ArgumentParser, commands: Iterable[Command]) -> None:
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        below = choices.add_parser(command.name, help=command.help, description=f"{command.help.capitalize()}.")
        if command.commands:
            _add(below, command.commands)
            continue
        below.set_defaults(function=command.function)
        for item in command.arguments:
            below.add_argument(*item.flags, **item.options)


def execute(function: str, arguments: argparse.Namespace) -> int:
    """Run *function* (``module:name``) with *arguments*; what goes wrong is a line on stderr and an exit code."""
    module, _, name = function.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), name)(arguments)
        sys.stdout.flush()  # here, where a reader that went away is noticed
    except BrokenPipeError:
        # The reader of our output went away (`mlops ... | head`). Nothing more can be said, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except MlopsError as error:
        lines = str(error).splitlines()
        if type(error.__cause__).__name__ == "AirflowNotFoundException":  # by name: most commands do without Airflow
            lines.append(
                "Outside of a task connections are looked for in the environment (AIRFLOW_CONN_...) and the secrets "
                "backend, not in Airflow's database."
            )
    except OSError as error:
        lines = [f"{error.filename}: {error.strerror}." if error.filename else str(error)]
    else:
        return code
    for line in lines:
        print(f"mlops: error: {line}", file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())
