"""
YAML 1.2 as a tree whose every value knows its file and line, and the one rule by which trees are merged. Pure.

Only the events of ruamel.yaml are used. The values are made here, by the core schema of YAML 1.2 (`on` and `NO` are
text, `1.10` is a number): that is quicker than its loaders and leaves no tag that could make an object.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from airflow_provider_mlops.pipeline.problems import Path, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml.events import Event

__all__ = ["MAX_BYTES", "DocumentError", "Node", "Origin", "merge", "origins", "parse", "plain", "walk"]

MAX_BYTES = 200_000
"""Largest pipeline file."""
_MAX_DEPTH = 20
_MAX_DIGITS = 40

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a value was written.

    :param file: the file as messages show it; empty for a default or a value from Python.
    :param line: 1-based; 0 where there is none.
    :param layer: ``file``, ``_mlops.yaml``, ``target NAME``, ``file name`` or ``default``.
    """

    file: str = ""
    line: int = 0
    layer: str = "default"

    def __str__(self) -> str:
        """Return the words behind a value: ``rain.yaml:7``, ``rain.yaml:30 (target dev)``, ``default``."""
        if not self.line or self.layer == "file name":
            return self.layer
        return f"{self.file}:{self.line}" + (f" ({self.layer})" if self.layer.startswith("target ") else "")


@dataclass(frozen=True, slots=True)
class Node:
    """
    A value and where it was written; in a map, the line of the key.

    :param value: a scalar, ``dict[str, Node]`` or ``list[Node]``.
    """

    value: Any
    origin: Origin

    @property
    def children(self) -> list[tuple[str | int, Node]]:
        """The entries of a map or a list; none of a scalar."""
        if isinstance(self.value, dict):
            return list(self.value.items())
        return list(enumerate(self.value)) if isinstance(self.value, list) else []


class DocumentError(Exception):
    """The text is no document of ours. Holds ``(line, message)`` pairs; the caller knows the file."""

    def __init__(self, *found: tuple[int, str]) -> None:
        super().__init__("; ".join(f"line {line}: {message}" for line, message in found))
        self.found = found


def parse(data: bytes, *, file: str, layer: str) -> Node:
    """
    Return the map that *data*, one YAML document in UTF-8, holds.

    Refused: more than `MAX_BYTES`, another encoding, tags, aliases (and so "billion laughs"), duplicate keys, keys that
    are no text, NaN and infinity, several documents, more than 20 levels, and anything but a map at the top.

    :raises DocumentError: with every problem that could be found before the text stopped making sense.
    """
    text = _decode(data)
    composer = _Composer(file, layer)
    try:
        top = composer.document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = " ".join(str(error.problem or error.context).split())
        if "'\\t'" in message:
            message = "a tab; YAML indents with spaces"
        elif "'@'" in message or "'%'" in message:
            message += '. Put the value in quotes ("@daily")'
        raise DocumentError(*composer.found, (line, f"not YAML: {message}.")) from None
    except (YAMLError, ValueError) as error:
        raise DocumentError(*composer.found, (composer.line, f"not YAML: {_first_line(error)}.")) from None
    if composer.found:
        raise DocumentError(*composer.found)
    if not isinstance(top.value, dict):
        got = "nothing" if top.value is None else "a list" if isinstance(top.value, list) else "one value"
        raise DocumentError(
            (
                top.origin.line,
                f"expected a map (key: value lines) at the top, got {got}. `mlops init` writes a file to start from.",
            )
        )
    return top


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:120]


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise DocumentError((1, f"the file has more than {MAX_BYTES:,} bytes, the most that a pipeline file may have."))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError((line, f"byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8.")) from None
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise DocumentError((line, f"the file holds the control character {control[0]!r}; it is not text."))
    return text


@dataclass(slots=True)
class _Composer:
    file: str
    layer: str
    line: int = 1
    found: list[tuple[int, str]] = field(default_factory=list)

    def document(self, events: Iterator[Event]) -> Node:
        """Return the only document of the stream."""
        top: Node | None = None
        for event in events:
            self.line = event.start_mark.line + 1
            if isinstance(event, DocumentStartEvent):
                if top is not None:
                    raise DocumentError(
                        *self.found, (self.line, "a second document begins here. A pipeline is one file.")
                    )
                if event.version not in (None, (1, 2)):
                    raise DocumentError((self.line, "pipeline files are YAML 1.2. Take the %YAML line out."))
            elif isinstance(event, AliasEvent | ScalarEvent | MappingStartEvent | SequenceStartEvent):
                top = self._node(event, events, depth=1)
        return top or Node(None, Origin(self.file, 1, self.layer))

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        self.line = event.start_mark.line + 1
        origin = Origin(self.file, self.line, self.layer)
        if isinstance(event, AliasEvent):
            self._problem(f"*{event.anchor}: aliases are not read. Write the value out, or put it into _mlops.yaml.")
            return Node(None, origin)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self._problem(f"{tag!r}: tags are not read. Write plain values.")
        if depth > _MAX_DEPTH:
            raise DocumentError(*self.found, (self.line, f"more than {_MAX_DEPTH} levels of maps and lists."))
        if isinstance(event, MappingStartEvent):
            return Node(self._map(events, depth), origin)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), SequenceEndEvent):
                items.append(self._node(event, events, depth + 1))
            return Node(items, origin)
        return Node(self._scalar(event), origin) if isinstance(event, ScalarEvent) else Node(None, origin)

    def _map(self, events: Iterator[Event], depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            origin = key.origin
            self.line = origin.line
            if not isinstance(key.value, str):
                what = "a map or a list" if key.children else str(getattr(event, "value", key.value))
                self._problem(f"a key must be text, got {what}. Put it in quotes.")
            elif key.value in result:
                first = result[key.value].origin.line
                self._problem(f"{key.value!r} is here a second time; the first is in line {first}. Keep one.")
            else:
                result[key.value] = replace(value, origin=origin)
        return result

    def _problem(self, message: str) -> None:
        self.found.append((self.line, message))

    def _scalar(self, event: ScalarEvent) -> Any:  # noqa: PLR0911 - one line per type of the core schema
        text: str = event.value
        if _SURROGATE.search(text):  # written as \ud83d\ude00, two halves of one character, as JSON does
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if event.style is not None or event.tag == "!":
            return text
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
            return text[0] in "tT"
        if _INT.fullmatch(text) or _BASED.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                self._problem(f"a number of {len(text)} digits. Put it in quotes if it is text.")
                return None
            return int(text) if _INT.fullmatch(text) else int(text, 0)
        if _NO_NUMBER.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
            self._problem(f"{text[:_MAX_DIGITS]}: infinity and NaN are no values here.")
            return None
        return float(text) if _FLOAT.fullmatch(text) else text


def merge(base: Node, over: Node) -> Node:
    """
    Return *base* with *over* laid upon it: maps merge, everything else replaces.

    A ``null`` of *over* is kept, so that `plain` can leave the key out and still knows who took it away.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, over.origin)


def plain(node: Node) -> Any:
    """Return the value without origins; keys of maps whose value is ``null`` are left out."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items() if child.value is not None}
    return [plain(child) for child in node.value] if isinstance(node.value, list) else node.value


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield *node* and all nodes below it with their paths, in the order of the document."""
    yield path, node
    for key, child in node.children:
        yield from walk(child, (*path, key))


def origins(node: Node) -> dict[str, Origin]:
    """Return the origin of every value, those that were taken away by ``null`` included, by dotted path."""
    return {dotted(path): child.origin for path, child in walk(node) if path}
