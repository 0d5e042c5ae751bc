"""What pydantic found, in the words of the format. Pure."""

from __future__ import annotations

import difflib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.data.values import parse_duration
from airflow_provider_mlops.errors import ConfigError, did_you_mean
from airflow_provider_mlops.pipeline.problems import Path, Problem
from airflow_provider_mlops.pipeline.schema import Fragment, child, keys_of, model_schema, resolve
from airflow_provider_mlops.pipeline.spec import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

__all__ = ["expected", "explain", "secret_in", "show"]

_SHOWN = 60
_SIMPLE = re.compile(r"[\w.-]{1,60}")
_WORDS = {"string": "a text", "boolean": "true or false", "object": "a map (key: value lines)"}
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")
_NUMBER = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?\s*")
_LONG_DURATION = re.compile(r"\s*([0-9]{1,6})\s*(sec|min|hour|day|week|s|m|h|d|w)[a-z]*\s*", re.IGNORECASE)
_SWITCH = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
_USERINFO = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://[^/@\s:]*:[^/@\s]+@")
_KEY_IN_QUERY = re.compile(
    r"[?&;]([\w.-]*(?:access_?key|secret|token|passw|credential|signature|account_?key|api_?key)[\w.-]*|sig|key)=[^&;]",
    re.IGNORECASE,
)


def explain(error: ValidationError, document: Mapping[str, Any]) -> list[Problem]:
    """Return the problems behind *error*, which *document* caused; one per path, none below an unknown key."""
    found: dict[Path, Problem] = {}
    unknown: list[Path] = []
    for item in error.errors(include_url=False, include_input=False):
        if item["type"] == "mlops_problems":
            return list(item["ctx"]["problems"])
        path, value = _within(item["loc"], document)
        if item["type"] == "extra_forbidden" or item["loc"][-1:] == ("[key]",):
            unknown.append(path)
            message = _unknown(path)
        elif item["type"] == "missing" and isinstance(key := item["loc"][len(path)], str):
            path = (*path, key)
            message = f"missing. {resolve(_at(path)).get('description', '').replace('`', '')}"
        elif item["type"] == "mlops_value":
            message = item["ctx"]["message"]
        elif item["type"] == "too_short":
            if value:
                continue  # the entries are there, and what is wrong with them is said of each
            message = "expected at least one entry, got none."
        else:
            hint = _hint(_at(path), value)
            message = f"expected {expected(_at(path))}, got {show(value)}.{' ' + hint if hint else ''}"
        found.setdefault(path, Problem(path, message))
    return [p for p in found.values() if not any(p.path[: len(top)] == top != p.path for top in unknown)]


def _at(path: Path) -> Fragment:
    here = model_schema()
    for part in path:
        here = child(here, part)
    return here


def _within(location: Path, document: Any) -> tuple[Path, Any]:
    """Return the part of *location* that is a path of *document*, and the value there; pydantic adds its own tags."""
    path: list[str | int] = []
    value = document
    for part in location:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if not inside:
            break
        value = value[part]
        path.append(part)
    return tuple(path), value


def _unknown(path: Path) -> str:
    *section, last = path
    known, key = keys_of(_at(tuple(section))), str(last)
    near = did_you_mean(key, known)
    if not near:
        homes = [
            f"{home}.{name}"
            for name in difflib.get_close_matches(key, _homes(), n=1, cutoff=0.75)
            for home in _homes()[name]
        ]
        near = f" Did you mean {' or '.join(homes[:3])}?" if homes else ""
    what = "step" if section == ["steps"] else "key"
    listed = [name for name in known if what == "key" or not name.startswith(("before_", "after_"))]
    return f"unknown {what}.{near or ' Known: ' + ', '.join(listed) + '.'}"


@lru_cache(maxsize=1)
def _homes() -> dict[str, list[str]]:
    """Return the sections that know a key, by key."""
    homes: dict[str, list[str]] = {}

    def visit(fragment: Fragment, path: str) -> None:
        for key, below in resolve(fragment).get("properties", {}).items():
            if path:
                homes.setdefault(key, []).append(path)
            visit(below, f"{path}.{key}" if path else key)

    visit(model_schema(), "")
    return homes


def expected(fragment: Fragment) -> str:
    """
    Return the words for the values that a piece of JSON Schema allows: ``a number in 0..1``.

    >>> expected({"type": "integer", "minimum": 1})
    'a whole number >= 1'
    """
    fragment = fragment if "title" in fragment else resolve(fragment)
    if "title" in fragment or "const" in fragment:
        return str(fragment.get("title", fragment.get("const")))
    if "enum" in fragment:
        return "one of " + ", ".join(map(str, fragment["enum"]))
    if "anyOf" in fragment:
        words = [expected(option) for option in fragment["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    kind = fragment.get("type")
    if kind in ("number", "integer", "array"):
        return _list_words(fragment) if kind == "array" else _number_words(fragment)
    return _WORDS.get(str(kind), "any value")


def _list_words(fragment: Fragment) -> str:
    if "prefixItems" in fragment:
        return "a list [lowest, highest] of numbers"
    items = expected(fragment.get("items", {}))
    if items in _WORDS.values():
        return "a list"
    return f"a list, each {items}"


def _number_words(fragment: Fragment) -> str:
    words = "a whole number" if fragment["type"] == "integer" else "a number"
    low, high, above = (fragment.get(key) for key in ("minimum", "maximum", "exclusiveMinimum"))
    if low is not None and low == high:
        return str(low)
    if low is not None and high is not None:
        return f"{words} in {low:.12g}..{high:.12g}"
    if above is not None:
        return f"{words} > {above:g}" + (f" and <= {high:g}" if high is not None else "")
    return words + (f" >= {low:g}" if low is not None else "")


def show(value: Any) -> str:
    """Return *value* as YAML would spell it, short, and without a password that may stand in it."""
    if isinstance(value, str):
        if secret_in(value):
            return "a text that holds a secret"
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
    if isinstance(value, dict):
        return "a map"
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return (
        text if len(text) <= _SHOWN and not secret_in(text) else "a list" if isinstance(value, list) else "a long value"
    )


def secret_in(text: str) -> str | None:
    """Return what kind of secret the URL *text* carries, or ``None``."""
    if "://" not in text:
        return None
    if _USERINFO.search(text):
        return "a password"
    match = _KEY_IN_QUERY.search(text)
    return f"a secret ({match[1]}=...)" if match else None


def _hint(fragment: Fragment, value: Any) -> str:
    options = [resolve(option) for option in resolve(fragment).get("anyOf", [fragment])]
    for option in options:
        hint = _hint_of_one(option, value)
        if hint:
            return hint
    return ""


def _hint_of_one(option: Fragment, value: Any) -> str:
    kind = option.get("type")
    spelled = value if isinstance(value, str) else json.dumps(value, default=str)
    hint = ""
    if "[smhd]" in option.get("pattern", ""):
        hint = _duration_hint(value)
    elif "enum" in option:
        hint = did_you_mean(spelled, map(str, option["enum"])).strip()
    elif kind in ("number", "integer") and isinstance(value, str):
        hint = _number_hint(option, value)
    elif kind == "boolean" and spelled.lower() in _SWITCH:
        hint = f"Write {_SWITCH[spelled.lower()]}."
    elif kind == "array" and _SIMPLE.fullmatch(spelled) and isinstance(value, str | int | float):
        hint = f"Write [{spelled}]."
    elif kind == "object" and _SWITCH.get(spelled.lower()) == "true":
        hint = "Write {} for the defaults."
    elif option.get("pattern") == NAME_PATTERN and isinstance(value, str):
        hint = f"Write {_name_like(value)}."
    elif kind == "string" and not isinstance(value, str | dict | list) and "pattern" not in option:
        hint = f'Put it in quotes: "{spelled}".'
    return hint


def _name_like(text: str) -> str:
    """
    Return a pipeline's name that reads like *text*.

    >>> _name_like("It's my Model")
    'it_s_my_model'
    """
    return re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")[:60] or "model"


def _number_hint(option: Fragment, value: str) -> str:
    percent = _PERCENT.fullmatch(value)
    if percent:
        number = float(percent[1])
        if option.get("maximum") == 1:
            return f"Write {number / 100:.12g}."
        return f"Write {number / 100:.12g}, or {number:.12g} where the number is counted in per cent."
    return f"Write {value.strip()}, without quotes." if _NUMBER.fullmatch(value) else ""


def _duration_hint(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"Write {value}d for days."
    match = _LONG_DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    number, unit = int(match[1]), match[2][0].lower()
    text = f"{number * 7}d" if unit == "w" else f"{number}{unit}"
    try:
        parse_duration(text)
    except ConfigError:
        return ""
    return f"Write {text}."
