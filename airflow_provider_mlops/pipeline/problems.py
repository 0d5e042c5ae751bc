"""A problem of a pipeline file: where and what. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

__all__ = ["Path", "Problem", "dotted", "problems_error"]

Path = tuple[str | int, ...]

_WORD = re.compile(r"[\w<-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong.

    :param path: keys and list indices from the top of the document; empty for the document itself.
    :param message: what is wrong and what to write instead, without the path.
    """

    path: Path
    message: str


def dotted(path: Path) -> str:
    """
    Return *path* as people write it; a key that is more than a word is put in brackets and quotes.

    >>> dotted(("evaluate", 0, "metric"))
    'evaluate[0].metric'
    >>> dotted(("validate", "ranges", "net income"))
    "validate.ranges['net income']"
    """
    text = ""
    for part in path:
        if isinstance(part, int) or not _WORD.fullmatch(part):
            text += f"[{part!r}]"
        else:
            text += f".{part}" if text else part
    return text


def problems_error(problems: list[Problem]) -> PydanticCustomError:
    """Return an error that carries *problems* through pydantic."""
    text = "; ".join(f"{dotted(problem.path)}: {problem.message}" for problem in problems)
    return PydanticCustomError("mlops_problems", "{text}", {"text": text, "problems": problems})
