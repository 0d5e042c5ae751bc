"""``airflow mlops ...``: the same commands inside Airflow's command line. Every call of ``airflow`` imports this."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from airflow_provider_mlops.cli.commands import COMMANDS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from airflow_provider_mlops.cli.commands import Command

__all__ = ["get_commands"]


def get_commands() -> list[ActionCommand | GroupCommand]:
    """Return the group ``mlops``. Airflow calls this by its name in the provider's metadata."""
    return [
        GroupCommand(name="mlops", help="Continuous training of models", subcommands=[_of(item) for item in COMMANDS])
    ]


def _of(command: Command) -> ActionCommand | GroupCommand:
    if command.commands:
        return GroupCommand(command.name, command.help, [_of(item) for item in command.commands])
    arguments = [Arg(item.flags, **item.options) for item in command.arguments]  # type: ignore[no-untyped-call]
    return ActionCommand(command.name, command.help, _function(command.function), arguments)


def _function(path: str) -> Callable[[Namespace], NoReturn]:
    def run(arguments: Namespace) -> NoReturn:
        from airflow_provider_mlops.cli.main import execute

        raise SystemExit(execute(path, arguments))

    return run
