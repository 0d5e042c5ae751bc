"""The effective values of a pipeline, each with the place that it came from. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.pipeline.document import Origin
from airflow_provider_mlops.pipeline.problems import Path, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mlops.pipeline.loading import Loaded

__all__ = ["dump", "render"]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*")
_KEYWORD = re.compile(r"null|true|false|yes|no|on|off|~", re.IGNORECASE)
_DEFAULT = Origin()


def render(loaded: Loaded) -> str:
    """
    Return the whole specification as a pipeline file that says the same, each value with its origin behind it.

    ``# rain.yaml:7`` is the line that said it, ``(target prod)`` a target, ``# default`` nobody. The target has been
    laid upon the file, so there is no ``targets``.
    """
    values = loaded.spec.model_dump(mode="json", by_alias=True)
    lines = list(_map(values, (), "", loaded.origins))
    width = max(len(text) for text, _ in lines)
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def dump(values: Mapping[str, Any]) -> str:
    """Return *values* as YAML, in their order."""
    return "".join(f"{text}\n" for text, _ in _map(values, (), "", {}))


def _map(
    values: Mapping[str, Any], path: Path, indent: str, origins: Mapping[str, Origin]
) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        here = (*path, key)
        head = f"{indent}{_scalar(key)}:"
        if isinstance(value, dict) and value:
            yield head, ""
            yield from _map(value, here, indent + "  ", origins)
        elif isinstance(value, list) and value and all(isinstance(item, dict) and item for item in value):
            yield head, ""
            for i, item in enumerate(value):
                entry = list(_map(item, (*here, i), indent + "    ", origins))
                first, origin = entry[0]
                yield f"{indent}  - {first.lstrip()}", origin
                yield from entry[1:]
        else:
            yield f"{head} {_scalar(value)}", str(_origin(here, origins))


def _origin(path: Path, origins: Mapping[str, Origin]) -> Origin:
    return origins.get(dotted(path), _DEFAULT)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _KEYWORD.fullmatch(value):
        return value
    return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))


def _escaped(character: str) -> str:
    return character if character.isprintable() else f"\\U{ord(character):08x}"
