"""What is wrong with a document, where, and what was probably meant.

A refused document reports all its problems at once, each with the path in the document, so that an
author mends a file in one go. Warnings do not refuse: a pipeline that names a service which is not
there yet is accepted and waits.
"""

import re
import types
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from conveyor_registry.model.names import nearest

Path = tuple[str | int, ...]
"""Keys and indexes from the top of a document."""

PROBLEMS_MAX = 100
_WORDS_MAX = 300


class Severity(StrEnum):
    """Whether a problem refuses the document."""

    ERROR = "error"
    WARNING = "warning"


def render_path(path: Path) -> str:
    """``spec.edges[1].when`` for ``("spec", "edges", 1, "when")``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


_PATH_PART = re.compile(r"\[([0-9]{1,9})\]|\.?([^.\[\]]+)")


def parse_path(text: str) -> Path:
    """The path that :func:`render_path` rendered (keys that hold dots come apart)."""
    return tuple(
        int(match.group(1)) if match.group(1) else match.group(2)
        for match in _PATH_PART.finditer(text)
    )


class Problem(NamedTuple):
    """One problem; ``str()`` gives one line (a predicate's caret adds two)."""

    severity: Severity
    path: Path
    message: str
    nearest: str | None = None

    @classmethod
    def error(cls, path: Path, message: str, nearest: str | None = None) -> Self:
        """A problem that refuses the document."""
        return cls(Severity.ERROR, path, message, nearest)

    @classmethod
    def warning(cls, path: Path, message: str, nearest: str | None = None) -> Self:
        """A problem that the author should know and that refuses nothing."""
        return cls(Severity.WARNING, path, message, nearest)

    @property
    def where(self) -> str:
        """The path as text; empty for the document as a whole."""
        return render_path(self.path)

    @property
    def text(self) -> str:
        """The message with the suggestion."""
        if self.nearest is None:
            return self.message
        return f"{self.message} (did you mean {self.nearest!r}?)"

    def __str__(self) -> str:
        """Severity, path and message."""
        where = f"{self.where}: " if self.path else ""
        return f"{self.severity}: {where}{self.text}"


class DocumentRefused(ValueError):  # noqa: N818 - what happened, not what kind of thing it is
    """A document that is not valid; carries every problem."""

    retry_safe = False

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that refuse the document."""
    return [problem for problem in problems if problem.severity is Severity.ERROR]


def problems_of(error: ValidationError, model: type[BaseModel], data: Any) -> list[Problem]:
    """A validation error of pydantic in the words of this package.

    Unknown keys name the nearest known one, missing keys say so, enumerations list their values.
    Paths are those of the data (aliases), as the author wrote them.
    """
    problems: list[Problem] = []
    for details in error.errors(include_url=False)[:PROBLEMS_MAX]:
        path = _data_path(details["loc"])
        problems.append(_problem(details, path, model, data))
    return list(dict.fromkeys(problems))


def _data_path(location: Sequence[str | int]) -> Path:
    return tuple(part for part in location if part != "[key]")


def _problem(details: Any, path: Path, model: type[BaseModel], data: Any) -> Problem:
    kind, value = details["type"], details["input"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_keys(model, path[:-1])
        word = str(path[-1])
        close = nearest(word, known)
        message = f"unknown key {word[:80]!r}"
        if close is None and known:
            message += f"; known here: {', '.join(sorted(known))}"
        return Problem.error(path, message, close)
    if kind == "missing":
        return Problem.error(path[:-1] or path, f"the key {path[-1]!r} is missing")
    if kind in ("enum", "literal_error"):
        expected = str(context.get("expected", "")).replace("'", "")
        words = [word.strip() for part in expected.split(" or ") for word in part.split(",")]
        close = nearest(value, words) if isinstance(value, str) else None
        return Problem.error(path, f"{_shown(value)} is not one of: {', '.join(words)}", close)
    if value is None and kind.endswith("_type"):
        return Problem.error(path, "the key has no value")
    if kind == "string_type":
        return Problem.error(path, f"a text is needed, not {_shape(value)}")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return Problem.error(path, f"a mapping is needed, not {_shape(value)}")
    if kind in ("list_type", "tuple_type"):
        return Problem.error(path, f"a list is needed, not {_shape(value)}")
    if kind in _LENGTHS:
        limit, word = context[_LENGTHS[kind][0]], _LENGTHS[kind][1]
        return Problem.error(path, f"{context['actual_length']} given; {word} {limit}")
    if kind in _BOUNDS:
        limit = context[_BOUNDS[kind][0]]
        return Problem.error(path, f"{_shown(value)} is {_BOUNDS[kind][1]} {limit}")
    message = details["msg"].removeprefix("Value error, ")
    return Problem.error(path, message)


_LENGTHS = {"too_short": ("min_length", "needed at least"), "too_long": ("max_length", "at most")}
_BOUNDS = {
    "greater_than_equal": ("ge", "too small; the least is"),
    "greater_than": ("gt", "too small; it must be above"),
    "less_than_equal": ("le", "too large; the most is"),
    "less_than": ("lt", "too large; it must be below"),
}


def _shown(value: Any) -> str:
    return repr(value)[:_WORDS_MAX]


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return _shown(value)


def known_keys(model: type[BaseModel], path: Path) -> set[str]:
    """The keys that a model knows at a path of its data; empty where any key may stand."""
    current: Any = model
    for part in path:
        current = _step(current, part)
        if current is None:
            return set()
    found = _model_in(current)
    if found is None:
        return set()
    short: Iterable[str] = getattr(found, "short_keys", ())
    return {field.alias or name for name, field in found.model_fields.items()} | {*short}


def _step(annotation: Any, part: str | int) -> Any:
    if isinstance(part, int):
        arguments = get_args(_unwrapped(annotation))
        return arguments[0] if arguments else None
    model = _model_in(annotation)
    if model is None:
        return None
    for name, field in model.model_fields.items():
        if part in (field.alias or name, name):
            return field.annotation
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    plain = _unwrapped(annotation)
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def _unwrapped(annotation: Any) -> Any:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not types.NoneType)
        else:
            return annotation
