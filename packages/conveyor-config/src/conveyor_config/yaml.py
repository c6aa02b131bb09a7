"""A small, bounded subset of YAML, read from events.

YAML 1.1 as libraries read it is generous to attackers (an alias bomb of a few lines unfolds to
gigabytes) and to mistakes (``NO`` becomes false, ``12:30`` becomes 750, of two equal keys the last
one wins silently). Here the events of the parser are counted before anything is built from them,
anchors, aliases, tags and merge keys are refused, equal keys are refused, and every scalar stays
the text that was written; only an empty value, ``~`` and ``null`` mean "nothing". The models
convert explicitly. JSON is a subset of what is read.

Every key and list item remembers its line, so that problems found later can name it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from conveyor_config.errors import YamlRefused
from conveyor_registry.model.problem import Path as DataPath

BYTES_MAX = 256 << 10
NODES_MAX = 20_000
DEPTH_MAX = 32
DOCUMENTS_MAX = 1_000

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document's data and the line of each of its keys and items (from 1)."""

    file: str
    value: Value
    lines: Mapping[DataPath, int]

    def line_of(self, path: DataPath) -> int:
        """The line of a path, or of the nearest thing around it that the text has."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def place_of(self, path: DataPath = ()) -> str:
        """``file:line`` of a path."""
        return f"{self.file}:{self.line_of(path)}"


def read_yaml(data: bytes, file: str = "<text>") -> list[YamlDocument]:
    """All documents of a text; empty documents are left out.

    Args:
        data: UTF-8, at most 256 KiB.
        file: how to call the text in errors.

    Raises:
        YamlRefused: not YAML, beyond a bound, or outside the subset; with line and column.
    """
    if len(data) > BYTES_MAX:
        raise YamlRefused(file, 1, 1, f"the text is larger than {BYTES_MAX >> 10} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlRefused(file, line, 1, "the text is not UTF-8") from None
    return list(_Builder(text, file).documents())


class _Builder:
    """Builds values from events, iteratively deep at most ``DEPTH_MAX``."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._text = text
        self._nodes = 0
        self._lines: dict[DataPath, int] = {}
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)

    def _refuse(self, mark: Any, reason: str) -> YamlRefused:
        return YamlRefused(self._file, mark.line + 1, mark.column + 1, reason)

    def _event(self) -> Any:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            reason = " ".join(str(p) for p in (error.context, error.problem) if p)
            if (
                self._text.splitlines()[mark.line : mark.line + 1]
                and "\t" in (self._text.splitlines()[mark.line][: mark.column + 1])
            ):
                reason += "; indent with blanks, not with tabs"
            raise self._refuse(mark, reason) from None
        except yaml.reader.ReaderError as error:
            position = error.position if isinstance(error.position, int) else 0
            line = self._text.count("\n", 0, position) + 1
            reason = f"the character {error.character!r} is not allowed"
            raise YamlRefused(self._file, line, 1, reason) from None

    def documents(self) -> Iterator[YamlDocument]:
        count = 0
        while True:
            event = self._event()
            if isinstance(event, yaml.StreamEndEvent):
                return
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            count += 1
            if count > DOCUMENTS_MAX:
                raise self._refuse(event.start_mark, f"more than {DOCUMENTS_MAX} documents")
            first = self._event()
            self._lines = {(): first.start_mark.line + 1}
            value = self._value(first, ())
            if value is not None:
                yield YamlDocument(self._file, value, self._lines)

    def _value(self, event: Any, path: DataPath) -> Value:
        self._guard(event, path)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            return None if plain and event.value in _NOTHING else str(event.value)
        build: Callable[[DataPath], Value] = (
            self._mapping if isinstance(event, yaml.MappingStartEvent) else self._sequence
        )
        return build(path)

    def _guard(self, event: Any, path: DataPath) -> None:
        mark = event.start_mark
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._refuse(mark, f"more than {NODES_MAX} values")
        if len(path) >= DEPTH_MAX and not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(mark, f"nested deeper than {DEPTH_MAX}")
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(mark, f"aliases (*{event.anchor}) are not read; write the value out")
        if event.anchor is not None:
            raise self._refuse(mark, f"anchors (&{event.anchor}) are not read")
        if event.tag is not None:
            raise self._refuse(mark, f"tags ({event.tag}) are not read")

    def _sequence(self, path: DataPath) -> Value:
        items: list[Value] = []
        while not isinstance(event := self._event(), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self._lines[here] = event.start_mark.line + 1
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: DataPath) -> Value:
        mapping: dict[str, Value] = {}
        while not isinstance(event := self._event(), yaml.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            if key in mapping:
                first = self._lines[here]
                raise self._refuse(
                    event.start_mark, f"the key {key[:80]!r} stands already in line {first}"
                )
            self._lines[here] = event.start_mark.line + 1
            mapping[key] = self._value(self._event(), here)
        return mapping

    def _key(self, event: Any, path: DataPath) -> str:
        self._guard(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse(event.start_mark, "a key is a text")
        if event.value == "<<" and event.implicit[0]:
            raise self._refuse(event.start_mark, "merge keys (<<) are not read")
        if event.value == "" and event.implicit[0]:
            raise self._refuse(event.start_mark, "a key is missing before ':'")
        return str(event.value)
