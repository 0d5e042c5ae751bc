"""``mlops replay``: does the record of a version give the version again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_mlops.hooks.replay import Replay
    from airflow_provider_mlops.jobs.record import MetricPair

__all__ = ["run"]

_FOUND = 1


def run(arguments: Namespace) -> int:
    """Train the version again and print what is the same; 1 when a metric is not."""
    import logging

    from airflow_provider_mlops.data.values import parse_duration
    from airflow_provider_mlops.hooks.replay import replay

    done = replay(
        arguments.model,
        arguments.version,
        python=arguments.python,
        tolerance=arguments.tolerance,
        ignore=arguments.ignore or (),
        run_timeout=parse_duration(arguments.run_timeout),
        mlflow_conn_id=arguments.mlflow_conn_id,
        log=logging.getLogger(__name__),
    )
    print("\n".join(told(arguments.model, arguments.version, done, arguments.tolerance)))
    return 0 if _holds(done) else _FOUND


def told(model: str, version: str, done: Replay, tolerance: float) -> list[str]:
    """Return the lines that say how the replay came out."""
    lines = [
        f"{model} version {version}: MLflow run {done.run_id}, replayed as {done.replayed_run_id}.",
        f"Environment: {', '.join(done.environment) or 'the same packages'}.",
    ]
    if done.metrics:
        rows = [("metric", "recorded", "replayed", "equal"), *map(_row, done.metrics)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    verdict = "Every metric is" if _all_equal(done) else "Not every metric is"
    words = f"{verdict} equal within {tolerance:g}." if done.metrics else "No metric was recorded."
    others = [f"{name} ({'differs' if same is False else 'one only'})" for name, same in done.files.items() if not same]
    count = f"{len(done.files) - len(others)} of the model's {len(done.files)} files are the same bytes"
    files = f"{count}; not {', '.join(others)}." if others else f"{count}."
    return [*lines, f"{words} {files}"]


def _row(pair: MetricPair) -> tuple[str, str, str, str]:
    before, after = ("missing" if value is None else f"{value:.10g}" for value in (pair.before, pair.after))
    return pair.name, before, after, "yes" if pair.equal else "NO"


def _all_equal(done: Replay) -> bool:
    return all(pair.equal for pair in done.metrics)


def _holds(done: Replay) -> bool:
    """Without a single metric only the bytes can tell."""
    return _all_equal(done) if done.metrics else all(done.files.values())
