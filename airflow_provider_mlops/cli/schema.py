"""``mlops schema``: the format of pipeline files, for editors and for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["run"]


def run(arguments: Namespace) -> int:
    """Print the schema or the reference page, or write it to a file."""
    from airflow_provider_mlops.pipeline.reference import reference_page
    from airflow_provider_mlops.pipeline.schema import schema_text

    text = schema_text() if arguments.format == "json" else reference_page()
    if arguments.output is None:
        print(text, end="")
    else:
        Path(arguments.output).write_text(text, encoding="utf-8")
    return 0
