"""A model registry in memory, held to the same contract as the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from airflow_provider_mlops.errors import NotFoundError
from airflow_provider_mlops.promotion.registry import ModelVersion, check_alias, check_model_name


class MemoryRegistry:
    def __init__(self) -> None:
        self._versions: dict[str, list[ModelVersion]] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def create_version(self, model: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        check_model_name(model)
        versions = self._versions.setdefault(model, [])
        found = next((version for version in versions if version.run_id == run_id), None)
        if found is None:
            found = ModelVersion(model, str(len(versions) + 1), run_id, source, {}, ())
            versions.append(found)
        index = versions.index(found)
        versions[index] = replace(found, tags={**found.tags, **tags})
        return self.version(model, found.version)

    def version(self, model: str, version: str) -> ModelVersion:
        check_model_name(model)
        for found in self._versions.get(model, []):
            if found.version == version:
                names = sorted(alias for (of, alias), to in self._aliases.items() if of == model and to == version)
                return replace(found, aliases=tuple(names))
        known = [found.version for found in self._versions.get(model, [])]
        hint = f"Model {model!r} has versions {', '.join(known)}." if known else f"No model is named {model!r}."
        raise NotFoundError("Version", version, hint=hint)

    def versions(self, model: str) -> list[ModelVersion]:
        check_model_name(model)
        return [self.version(model, found.version) for found in reversed(self._versions.get(model, []))]

    def version_of(self, model: str, *, alias: str) -> str | None:
        check_model_name(model)
        check_alias(alias)
        return self._aliases.get((model, alias))

    def set_alias(self, model: str, *, alias: str, version: str) -> None:
        check_alias(alias)
        self._aliases[model, alias] = self.version(model, version).version

    def delete_alias(self, model: str, *, alias: str) -> None:
        check_model_name(model)
        check_alias(alias)
        self._aliases.pop((model, alias), None)

    def describe(self, model: str, version: str, text: str) -> None:
        found = self.version(model, version)
        index = int(found.version) - 1
        self._versions[model][index] = replace(self._versions[model][index], description=text)
