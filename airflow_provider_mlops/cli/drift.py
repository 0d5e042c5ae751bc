"""``mlops drift REFERENCE CURRENT``: has this data moved, and does it matter?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from airflow_provider_mlops.cli.commands import COMMANDS
from airflow_provider_mlops.cli.main import execute
from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mlops.drift.check import DriftPolicy, DriftReport
    from airflow_provider_mlops.drift.profile import DataProfile

__all__ = ["main", "run"]


def main(arguments: Sequence[str], prog: str) -> int:
    """Run the command alone, under the name *prog*, with the exit codes of `airflow_provider_mlops.cli.main`."""
    command = next(command for command in COMMANDS if command.name == "drift")
    parser = argparse.ArgumentParser(prog=prog, description=f"{command.help.capitalize()}.")
    for item in command.arguments:
        parser.add_argument(*item.flags, **item.options)
    return execute(command.function, parser.parse_args(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Do what *arguments* ask for and return the exit code. :raises MlopsError: it cannot be done."""
    from airflow_provider_mlops.adapters.text_files import write_text
    from airflow_provider_mlops.drift.check import DriftPolicy, check

    _require_one_side(arguments)
    policy = DriftPolicy(
        ignore_shift_below=arguments.ignore_shift_below,
        false_alarms_per_30_days=arguments.false_alarms_per_30_days,
        checks_per_30_days=arguments.checks_per_day * 30,
        min_rows=arguments.min_rows,
    )
    reference = _reference(arguments)
    current, trailing = _counted(arguments, reference, policy)
    report = check(reference, current, policy, trailing=trailing)
    if arguments.save_profile:
        write_text(arguments.save_profile, reference.to_json())
    if arguments.html:
        from airflow_provider_mlops.drift.report import html

        title = f"{arguments.current or ', '.join(arguments.served_by)} against {arguments.reference}"
        write_text(arguments.html, html(report, reference, current, title=title))
    _say(report, as_json=arguments.json)
    return 1 if arguments.fail_on_drift and report.verdict.value in {"drift", "bad_data"} else 0


def _require_one_side(arguments: argparse.Namespace) -> None:
    if bool(arguments.current) == bool(arguments.served_by):
        raise ConfigError("Name the data to judge, CURRENT, or the servers that count it: --served-by URL.")
    if arguments.trailing and not arguments.window:
        raise ConfigError("--trailing needs --window, the time that it lies before.")
    for name in ("window", "max_rows"):
        if arguments.served_by and getattr(arguments, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} goes without --served-by, whose servers count all that they were asked "
                "since they started."
            )


def _counted(
    arguments: argparse.Namespace, reference: DataProfile, policy: DriftPolicy
) -> tuple[DataProfile, DataProfile | None]:
    """Return the profile to judge, and that of the time before it if asked for."""
    if arguments.served_by:
        from airflow_provider_mlops.adapters.engines.serving import served_profile

        return served_profile(arguments.served_by, layout=reference), None
    from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
    from airflow_provider_mlops.adapters.newest import newest_window
    from airflow_provider_mlops.data.values import DataRef, parse_duration
    from airflow_provider_mlops.drift.check import rows_needed

    columns = tuple(arguments.columns) if arguments.columns else None
    data = DataRef(path=arguments.current, timestamp=arguments.time or reference.timestamp, columns=columns)
    window = newest_window(data, parse_duration(arguments.window)) if arguments.window else None
    most = arguments.max_rows
    engine = EmbeddedEngine(max_rows=most if most is None else max(most, rows_needed(reference, policy)))
    current = engine.window(data, layout=reference, window=window)
    if window is None or not arguments.trailing:
        return current, None
    before = window.before(parse_duration(arguments.trailing))
    return current, engine.window(data, layout=reference, window=before)


def _reference(arguments: argparse.Namespace) -> DataProfile:
    from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
    from airflow_provider_mlops.adapters.text_files import read_text
    from airflow_provider_mlops.data.values import DataRef, parse_duration
    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.drift.selection import select_columns

    if arguments.reference.endswith(".json"):
        for name in ("text_columns", "segment"):
            if getattr(arguments, name) is not None:
                raise ConfigError(
                    f"--{name.replace('_', '-')} says how a profile is made, and REFERENCE is one. Name the data that "
                    "it was made of."
                )
        profile = DataProfile.from_json(read_text(arguments.reference), source=arguments.reference)
        return select_columns(profile, columns=arguments.columns, exclude=arguments.exclude or ())
    if arguments.window and not arguments.time:
        raise ConfigError("--window needs --time, the column with the event time.")
    columns = tuple(arguments.columns) if arguments.columns else None
    data = DataRef(path=arguments.reference, timestamp=arguments.time, columns=columns)
    block = parse_duration(arguments.window) if arguments.window else None
    return EmbeddedEngine(max_rows=arguments.max_rows).reference(
        data, block=block, exclude=arguments.exclude or (), text=arguments.text_columns, segment=arguments.segment
    )


def _say(report: DriftReport, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    from airflow_provider_mlops.drift.report import lines

    print(report.sentence)
    print()
    print("\n".join(lines(report)))
