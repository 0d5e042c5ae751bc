"""The JSON Schema of the format, made from the model. Pure."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from airflow_provider_mlops.pipeline.spec import PipelineSpec, RunsOn, Section, format_duration

if TYPE_CHECKING:
    from pydantic_core.core_schema import ModelSchema

__all__ = ["TARGETS", "Fragment", "child", "json_schema", "keys_of", "model_schema", "resolve", "schema_text"]

Fragment = dict[str, Any]

TARGETS = (
    "Parts of a pipeline that differ from place to place, by name of the place: `prod: {mode: enforce}`. The one that "
    "`[mlops] target` names is laid upon the rest."
)
_ID = "https://airflow-provider-mlops.github.io/schema/pipeline-1.json"


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        """Keep titles for the words that say what a value may be."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """Write a default as a pipeline file would."""
        if isinstance(dft, RunsOn):
            return "process"
        if isinstance(dft, Section):
            return {}
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return dft.date().isoformat() if isinstance(dft, datetime) else super().encode_default(dft)

    def model_schema(self, schema: ModelSchema) -> Fragment:
        """Leave the class name out: users do not know it."""
        result = super().model_schema(schema)
        result.pop("title", None)
        return result


@lru_cache(maxsize=1)
def model_schema() -> Fragment:
    """Return the schema of a merged document, as `PipelineSpec` validates it."""
    return PipelineSpec.model_json_schema(by_alias=True, schema_generator=_Generator)


def resolve(fragment: Fragment) -> Fragment:
    """Follow the reference of *fragment*, also through "this or null"; what stands beside it wins."""
    options = [option for option in fragment.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        fragment = {**options[0], **{key: value for key, value in fragment.items() if key != "anyOf"}}
    reference = fragment.get("$ref")
    if reference is None:
        return fragment
    target = model_schema()["$defs"][reference.rpartition("/")[2]]
    return resolve({**target, **{key: value for key, value in fragment.items() if key != "$ref"}})


def child(fragment: Fragment, part: str | int) -> Fragment:
    """Return the schema of the entry *part* of a map or a list; ``{}``, anything, when nothing is known about it."""
    fragment = resolve(fragment)
    for option in fragment.get("anyOf", ()):
        found = child(option, part)
        if found:
            return found
    if isinstance(part, int):
        prefix = fragment.get("prefixItems", ())
        found = prefix[part] if part < len(prefix) else fragment.get("items", {})
    else:
        found = fragment.get("properties", {}).get(part) or fragment.get("additionalProperties", {})
    return found if isinstance(found, dict) else {}


def keys_of(fragment: Fragment) -> list[str]:
    """Return the keys that a map may have, as far as they are known."""
    fragment = resolve(fragment)
    for option in fragment.get("anyOf", ()):
        found = keys_of(option)
        if found:
            return found
    return list(fragment.get("properties", ())) or list(fragment.get("propertyNames", {}).get("enum", ()))


def _loosen(fragment: Fragment) -> None:
    fragment.pop("required", None)
    for key, value in fragment.get("properties", {}).items():
        options = value.get("anyOf", [])
        if {"type": "null"} in options:
            continue
        beside = {name: value[name] for name in ("description", "default") if name in value}
        bare = {name: value[name] for name in value if name not in beside}
        if bare.get("additionalProperties"):
            bare["additionalProperties"] = _or_null(bare["additionalProperties"])
        fragment["properties"][key] = {**beside, **_or_null(bare)}


def _or_null(fragment: Fragment) -> Fragment:
    return {"anyOf": [fragment, {"type": "null"}]}


def json_schema() -> Fragment:
    """
    Return the JSON Schema (draft 2020-12) of a pipeline file and of ``_mlops.yaml``, for editors.

    It never refuses a file that loads. So no key of a section is required here, since ``_mlops.yaml`` may hold it, and
    ``null``, which takes a key away, is allowed everywhere.
    """
    merged = deepcopy(model_schema())
    definitions = merged["$defs"]
    whole = {"RuleSpec"}  # an entry of a list: lists are replaced, never merged
    for name, definition in definitions.items():
        if name not in whole:
            for part in (definition, *definition.get("anyOf", ())):
                _loosen(part)
    _loosen(merged)
    definitions["Target"] = {
        "type": "object",
        "description": "Laid upon the rest of the file where this target is chosen.",
        "properties": merged["properties"],
        "additionalProperties": False,
    }
    properties: Fragment = {key: {"$ref": f"#/$defs/Target/properties/{key}"} for key in merged["properties"]}
    properties["targets"] = {
        "description": TARGETS,
        **_or_null({"type": "object", "additionalProperties": _or_null({"$ref": "#/$defs/Target"})}),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": _ID,
        "title": "A pipeline of airflow-provider-mlops",
        "description": "Continuous training of one model. Maps merge, lists replace, null removes.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """Return the JSON Schema as a file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
