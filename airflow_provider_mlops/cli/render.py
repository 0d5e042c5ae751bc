"""``mlops render``: the effective values of a pipeline, each with its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["run"]


def run(arguments: Namespace) -> int:
    """Print the pipeline as it is after defaults and target."""
    from airflow_provider_mlops.pipeline import load, render

    print(render(load(arguments.file, target=arguments.target, root=arguments.root)), end="")
    return 0
