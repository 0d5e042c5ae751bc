"""
From a pipeline file to a specification.

Layers, each laid upon the ones before it: ``_mlops.yaml`` of the outermost folder ... of the file's folder, the file,
the chosen target. One rule: maps merge, lists replace, ``null`` removes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_provider_mlops.errors import ConfigError, did_you_mean
from airflow_provider_mlops.pipeline import document
from airflow_provider_mlops.pipeline.document import DocumentError, Node, Origin
from airflow_provider_mlops.pipeline.explain import explain, secret_in
from airflow_provider_mlops.pipeline.problems import Path as KeyPath
from airflow_provider_mlops.pipeline.problems import Problem, dotted
from airflow_provider_mlops.pipeline.spec import PipelineSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DEFAULTS", "Loaded", "from_dict", "load", "target_names"]

DEFAULTS = "_mlops.yaml"
"""Name of the file with the defaults of a folder and the folders below it."""
_LEVELS = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    A specification and where each of its values was written.

    :param spec: what the files say.
    :param origins: by dotted path (``evaluate[0].metric``), for every value that was written; all others are defaults.
    :param files: every file that was read, the pipeline file last; absolute.
    :param target: the target that was laid upon the file, or ``None``.
    """

    spec: PipelineSpec
    origins: Mapping[str, Origin]
    files: tuple[Path, ...]
    target: str | None

    @property
    def file(self) -> Path:
        """The pipeline file, absolute."""
        return self.files[-1]

    def locate(self, path: str) -> str:
        """Return *path* as the pipeline means it: a relative one starts at the folder of the file, a URL is kept."""
        return path if "://" in path else os.path.normpath(self.file.parent / path)

    @property
    def data_path(self) -> str:
        """Absolute path or URL of the data."""
        return self.locate(self.spec.data.path)


def load(file: str | Path, *, target: str | None = None, root: str | Path | None = None) -> Loaded:
    """
    Return the specification that *file* gives together with the ``_mlops.yaml`` files above it.

    :param file: the pipeline file; messages show it as it is given here.
    :param target: the entry of ``targets`` to lay upon the file. A file without ``targets`` is the same everywhere.
    :param root: the folder up to which ``_mlops.yaml`` is looked for and within which scripts must lie, the DAG folder.
        Without it five levels are looked at, and scripts may lie anywhere below the outermost of them that has a
        ``_mlops.yaml``, or below the folder of the file.
    :raises ConfigError: with one line ``file:line: key: what is wrong`` per problem, sorted.
    """
    shown = Path(file)
    path = Path(os.path.abspath(shown))  # noqa: PTH100 - resolve() would follow links out of the DAG folder
    boundary = Path(os.path.abspath(root)) if root is not None else None  # noqa: PTH100 - as above
    layers, files = [], []
    for defaults in _defaults(path, boundary):
        name = str(defaults) if shown.is_absolute() else os.path.relpath(defaults)
        layers.append(_read(defaults, shown=name, layer=DEFAULTS))
        files.append(defaults)
    layers.append(_read(path, shown=str(shown), layer="file"))
    top = layers[0]
    for layer in layers[1:]:
        top = document.merge(top, layer)
    top = _with_target(top, target, file=str(shown))
    if "name" not in top.value or top.value["name"].value is None:
        name_node = Node(path.stem, Origin(str(shown), 1, "file name"))
        top = Node({"name": name_node, **{k: v for k, v in top.value.items() if k != "name"}}, top.origin)
    outermost = boundary or (files[0].parent if files else path.parent)
    spec = _validated(top, folder=path.parent, root=outermost, file=str(shown))
    return Loaded(spec=spec, origins=document.origins(top), files=(*files, path), target=target)


def from_dict(values: Mapping[str, Any]) -> PipelineSpec:
    """
    Return the specification that *values* gives, the words of a pipeline file as Python values.

    :raises ConfigError: with one line ``key: what is wrong`` per problem.
    """
    problems: list[Problem] = []
    top = _node(values, (), problems)
    if not isinstance(top.value, dict):
        raise ConfigError("Expected a map of the keys of a pipeline.")
    problems.extend(_secrets(top))
    if problems:
        raise ConfigError(_text(problems, top, file=""))
    return _validated(top, folder=None, root=None, file="")


def target_names(file: str | Path, *, root: str | Path | None = None) -> list[str]:
    """Return the names of the targets that *file* knows, those of its ``_mlops.yaml`` files included."""
    path = Path(os.path.abspath(file))  # noqa: PTH100 - as in load
    boundary = Path(os.path.abspath(root)) if root is not None else None  # noqa: PTH100 - as in load
    names: dict[str, None] = {}
    for name in (*_defaults(path, boundary), path):
        targets = _read(name, shown=str(name), layer="").value.get("targets")
        names.update(dict.fromkeys(key for key, _ in targets.children if isinstance(key, str)) if targets else {})
    return list(names)


def _defaults(path: Path, root: Path | None) -> list[Path]:
    """Return the ``_mlops.yaml`` files that hold for *path*, the outermost first."""
    folders = list(path.parents)
    levels = folders.index(root) + 1 if root is not None and root in folders else _LEVELS
    return [folder / DEFAULTS for folder in reversed(folders[:levels]) if (folder / DEFAULTS).is_file()]


def _read(path: Path, *, shown: str, layer: str) -> Node:
    try:
        with path.open("rb") as stream:
            data = stream.read(document.MAX_BYTES + 1)
    except FileNotFoundError:
        near = did_you_mean(path.name, _neighbors(path))
        raise ConfigError(f"{shown}: there is no such file.{near}") from None
    except IsADirectoryError:
        raise ConfigError(f"{shown}: is a folder. Name a pipeline file in it.") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}.") from None
    if path.suffix == ".py":
        near = did_you_mean(path.with_suffix(".yaml").name, _neighbors(path))
        raise ConfigError(f"{shown}: is Python, and a pipeline file is YAML.{near}")
    try:
        return document.parse(data, file=shown, layer=layer)
    except DocumentError as error:
        lines = sorted(set(error.found))
        raise ConfigError("\n".join(f"{shown}:{line}: {message}" for line, message in lines)) from None


def _neighbors(path: Path) -> list[str]:
    try:
        return [item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
    except OSError:
        return []


def _with_target(top: Node, target: str | None, *, file: str) -> Node:
    """Take ``targets`` out of *top* and lay the chosen one upon the rest."""
    rest = Node({key: node for key, node in top.value.items() if key != "targets"}, top.origin)
    targets = top.value.get("targets")
    if targets is None or targets.value is None:
        return rest
    at = f"{targets.origin.file}:{targets.origin.line}"
    if not isinstance(targets.value, dict):
        raise ConfigError(
            f"{at}: targets: expected a map of names, got a list or a value. Write prod: {{mode: enforce}}."
        )
    for name, node in targets.value.items():
        if node.value is not None and not isinstance(node.value, dict):
            here, key = f"{node.origin.file}:{node.origin.line}", dotted(("targets", name))
            raise ConfigError(f"{here}: {key}: expected a map (key: value lines).")
    if target is None:
        return rest
    chosen = targets.value.get(target)
    if chosen is None:
        known = ", ".join(dotted((name,)) for name in targets.value) or "none"
        raise ConfigError(
            f"{at}: targets: {file} has no target {target!r}.{did_you_mean(target, targets.value)} Known: {known}."
        )
    return rest if chosen.value is None else document.merge(rest, _relabel(chosen, f"target {target}"))


def _relabel(node: Node, layer: str) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {key: _relabel(child, layer) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_relabel(child, layer) for child in value]
    return Node(value, Origin(node.origin.file, node.origin.line, layer))


def _validated(top: Node, *, folder: Path | None, root: Path | None, file: str) -> PipelineSpec:
    problems = list(_secrets(top))
    values = document.plain(top)
    spec = None
    try:
        spec = PipelineSpec.model_validate(values)
    except ValidationError as error:
        secrets = {problem.path for problem in problems}
        problems.extend(problem for problem in explain(error, values) if problem.path not in secrets)
    problems.extend(_script_problems(values, folder, root))
    if problems or spec is None:
        raise ConfigError(_text(problems, top, file=file))
    return spec


def _secrets(top: Node) -> Iterator[Problem]:
    for path, node in document.walk(top):
        kind = secret_in(node.value) if isinstance(node.value, str) else None
        if kind:
            yield Problem(
                path, f"this URL holds {kind}. A pipeline file holds no secret: take it out and give it to the worker: "
                "its environment variables, an instance role, or fsspec's settings in ~/.config/fsspec."
            )  # fmt: skip


def _script_problems(values: Mapping[str, Any], folder: Path | None, root: Path | None) -> Iterator[Problem]:
    for section in ("prepare", "train"):
        job = values.get(section)
        script = job.get("script") if isinstance(job, dict) else None
        if not isinstance(script, str):
            continue
        path: KeyPath = (section, "script")
        pure = PurePosixPath(script)
        if pure.is_absolute() or "://" in script or "\\" in script or re.match(r"[A-Za-z]:", script):
            yield Problem(
                path, f"{script!r} is no relative path. A script lies beside its pipeline file: write its name."
            )
        elif folder is None or root is None:
            if ".." in pure.parts:
                yield Problem(path, f"{script!r} leaves the folder of the pipeline. Move the script into it.")
        elif not Path(os.path.normpath(folder / script)).is_relative_to(root):
            yield Problem(path, f"{script!r} leaves the DAG folder ({root.name}). Move the script into it.")


def _text(problems: list[Problem], top: Node, *, file: str) -> str:
    """Return one line per problem, in the order of file and line."""
    lines = []
    for problem in dict.fromkeys(problems):
        origin = _nearest(top, problem.path)
        key = dotted(problem.path)
        message = f"{key}: {problem.message}" if key else problem.message
        if origin.layer == "file name" and problem.path == ("name",):
            message += " It comes from the file's name: rename the file, or add the key `name`."
        where = (origin.file or file, origin.line)
        lines.append((where, f"{where[0]}:{where[1]}: {message}" if where[0] else message))
    return "\n".join(text for _, text in sorted(lines, key=lambda item: item[0]))


def _nearest(top: Node, path: KeyPath) -> Origin:
    """Return the origin of the value at *path*, or of the nearest map or list around it."""
    node = top
    for part in path:
        below = dict(node.children).get(part)
        if below is None:
            break
        node = below
    return node.origin


def _node(value: Any, path: KeyPath, problems: list[Problem]) -> Node:
    if isinstance(value, (list, tuple)):
        return Node([_node(item, (*path, i), problems) for i, item in enumerate(value)], Origin())
    if hasattr(value, "items"):
        result = {}
        for key, item in value.items():
            if isinstance(key, str):
                result[key] = _node(item, (*path, key), problems)
            else:
                problems.append(Problem(path, f"a key must be text, got {key!r}."))
        return Node(result, Origin())
    return Node(value, Origin())
