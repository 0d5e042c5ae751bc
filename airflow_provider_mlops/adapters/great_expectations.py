"""Great Expectations Core, used directly: a suite from a file against rows in memory."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.adapters.files import scan, schema
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.validation import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Suite", "check_suite", "read_suite"]

_LARGEST = 1 << 20  # bytes of a suite
_SHOWN = 5  # unexpected values that a sentence names
_LONGEST = 200  # characters of what was observed
_TYPE = re.compile(r"expect_[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Suite:
    """
    Expectations, not yet known to Great Expectations.

    :param name: the suite's own name, or its file's.
    :param expectations: type and keyword arguments of each.
    """

    name: str
    expectations: tuple[tuple[str, Mapping[str, Any]], ...]


def read_suite(path: str, folder: Path) -> Suite:
    """
    Return the suite in the JSON or YAML file *path*, in the form of Great Expectations 1.x or 0.x.

    :param path: the file; a relative path starts at *folder*.
    :param folder: the file must lie in it or below it, links followed.
    :raises ConfigError: it lies elsewhere, cannot be read, or is no suite. No content of the file is quoted.
    """
    file, root = (folder / path).resolve(), folder.resolve()
    if not file.is_relative_to(root):
        raise ConfigError(f"suite: {path!r} is not below {root}. Keep suites beside the DAG that uses them.")
    if file.suffix not in {".json", ".yaml", ".yml"}:
        raise ConfigError(f"suite: {path!r} is neither .json nor .yaml.")
    try:
        if file.stat().st_size > _LARGEST:
            raise ConfigError(f"suite: {path!r} is larger than {_LARGEST >> 20} MiB, which no suite is.")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"suite: {file} cannot be read: {why}.") from error
    return _suite_of(_parse(text, file, path), file, path)


def check_suite(suite: Suite, data_uri: str) -> tuple[Violation, ...]:
    """
    Return the expectations that do not hold for the rows at *data_uri*, in the suite's order.

    All rows are read into memory. An expectation that cannot be evaluated, say for want of its column, does not hold.

    :raises ConfigError: Great Expectations is not installed, or does not know an expectation or its arguments.
    :raises DataError: the rows cannot be read.
    """
    # The task's data is not the vendor's business; who wants that sets the variable.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        import great_expectations as gx
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    except ImportError as error:
        raise ConfigError(
            "suite: great_expectations is not installed. Run: pip install 'airflow-provider-mlops[gx]'."
        ) from error
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    expectations = []
    for index, (kind, arguments) in enumerate(suite.expectations):
        try:
            expectations.append(ExpectationConfiguration(type=kind, kwargs=dict(arguments)).to_domain_obj())
        except Exception as error:  # pydantic's and several of its own, by version
            raise ConfigError(
                f"suite {suite.name!r}: expectations[{index}]: Great Expectations {gx.__version__} does not take "
                f"{kind!r} so: {_short(error)}."
            ) from error
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch(
        batch_parameters={"dataframe": _frame(data_uri)}
    )
    found = batch.validate(gx.ExpectationSuite(name=suite.name, expectations=expectations))
    return tuple(_violation(result) for result in found.results if not result.success)


def _parse(text: str, file: Path, path: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return json.loads(text) if file.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
    except (ValueError, YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = getattr(error, "lineno", None) or (mark.line + 1 if mark is not None else 1)
        raise ConfigError(f"suite: {path!r} is no {file.suffix[1:].upper()}, see line {line}.") from None


def _suite_of(document: Any, file: Path, path: str) -> Suite:
    listed = document.get("expectations") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ConfigError(
            f"suite: {path!r} is no suite of Great Expectations: it needs a list 'expectations' that is not empty, "
            "each with 'type' and 'kwargs'."
        )
    expectations = []
    for index, entry in enumerate(listed):
        # 0.x wrote expectation_type.
        kind = (entry.get("type") or entry.get("expectation_type")) if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            raise ConfigError(f"suite: {path!r}: expectations[{index}] needs a 'type' such as expect_column_to_exist.")
        arguments = entry.get("kwargs") or {}
        if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
            raise ConfigError(f"suite: {path!r}: expectations[{index}].kwargs must be a mapping.")
        expectations.append((kind, arguments))
    name = document.get("name") or document.get("expectation_suite_name")
    return Suite(name if isinstance(name, str) else file.stem, tuple(expectations))


def _frame(data_uri: str) -> Any:
    import pyarrow as pa

    columns = schema(data_uri)
    types = {field.name: field.type for field in columns}
    batches = list(scan(data_uri, types=types))
    return (pa.Table.from_batches(batches) if batches else columns.empty_table()).to_pandas()


def _violation(result: Any) -> Violation:
    kind, arguments = result.expectation_config.type, dict(result.expectation_config.kwargs)
    arguments.pop("batch_id", None)
    named = [
        arguments.pop(key)
        for key in ("column", "column_list", "column_set", "column_A", "column_B")
        if key in arguments
    ]
    column = ", ".join(str(name) for group in named for name in (group if isinstance(group, list) else [group]))
    observed = _observed(result)
    about = f" of {column!r}" if column else ""
    expected = f" with {json.dumps(arguments, default=str)}" if arguments else ""
    return Violation(column, kind, f"{kind}{about}{expected[:_LONGEST]}: {observed}.", {"observed": observed})


def _observed(result: Any) -> str:
    raised = _raised(result.exception_info or {})
    if raised:
        return f"it could not be evaluated: {raised}"
    found = result.result or {}
    if found.get("observed_value") is not None:
        return f"observed {_short(found['observed_value'])}"
    if found.get("unexpected_count") is not None:
        values = ", ".join(dict.fromkeys(repr(value) for value in found.get("partial_unexpected_list", ())[:_SHOWN]))
        which = f", such as {_short(values)}" if values else ""
        return f"{found['unexpected_count']:,} of {found.get('element_count', 0):,} values are unexpected{which}"
    return "it does not hold"


def _raised(info: Mapping[str, Any]) -> str:
    """Return what an evaluation raised; it comes flat, or once per metric."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry.get("raised_exception"):
            return _short(entry.get("exception_message"))
    return ""


def _short(value: object) -> str:
    text = " ".join(str(value).split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
