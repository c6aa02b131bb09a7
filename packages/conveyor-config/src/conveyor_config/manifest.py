"""Files of YAML into documents of the cluster, with the place of every mistake.

All files are read and all documents checked before anything is said, so that an author sees every
mistake at once; what the cluster alone can know (which services exist) is left to it, and
:meth:`Manifests.place_of` translates its findings back into ``file:line``.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conveyor_config.errors import FileUnreadable, Located, ManifestsRefused, YamlRefused
from conveyor_config.load import read_bounded
from conveyor_config.yaml import BYTES_MAX, DOCUMENTS_MAX, YamlDocument, read_yaml
from conveyor_registry.model import (
    AnyDocument,
    DocumentKey,
    DocumentRefused,
    Pipeline,
    Problem,
    ServiceDocument,
    check,
    document_of,
)
from conveyor_registry.model.pipeline import as_written
from conveyor_registry.model.problem import Path as DataPath

FILES_MAX = 1_000
SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document and the text that it came from."""

    document: AnyDocument
    text: YamlDocument

    def place_of(self, path: DataPath = ()) -> str:
        """``file:line`` of a path in the document."""
        return self.text.place_of(_written(path, self.text))


@dataclass(frozen=True, slots=True)
class Manifests:
    """What was read, in the order of reading; keys are unique."""

    items: tuple[Manifest, ...]
    warnings: tuple[Located, ...] = ()

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def documents(self) -> tuple[AnyDocument, ...]:
        """All documents."""
        return tuple(item.document for item in self.items)

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The documents of kind Pipeline."""
        return tuple(d for d in self.documents if isinstance(d, Pipeline))

    @property
    def services(self) -> tuple[ServiceDocument, ...]:
        """The documents of sources, transforms, sinks and lookups."""
        return tuple(d for d in self.documents if isinstance(d, ServiceDocument))


def load_manifests(paths: Iterable[Path | str]) -> Manifests:
    """Read and check the documents in files, folders (not their subfolders) and ``-`` (stdin).

    Raises:
        FileUnreadable: a path is absent or unreadable, or a folder holds no manifest.
        ManifestsRefused: with every problem of all files, each with ``file:line`` and path.
    """
    items: list[Manifest] = []
    problems: list[Located] = []
    for name, data in _texts(paths):
        try:
            texts = read_yaml(data, name)
        except YamlRefused as error:
            problems.append(Located(f"{name}:{error.line}:{error.column}", _as_problem(error)))
            continue
        for text in texts:
            try:
                items.append(Manifest(document_of(text.value), text))
            except DocumentRefused as error:
                problems += _located(error.problems, text)
    problems += _duplicates(items)
    for item in items:
        if isinstance(item.document, Pipeline):
            problems += _located(check(item.document), item.text)
    if any(problem.is_error for problem in problems):
        raise ManifestsRefused(problems)
    if len(items) > DOCUMENTS_MAX:
        raise FileUnreadable(items[-1].text.file, f"more than {DOCUMENTS_MAX} documents in all")
    return Manifests(tuple(items), tuple(problems))


def _located(problems: Iterable[Problem], text: YamlDocument) -> list[Located]:
    """Problems of a document with the places in its text."""
    found: dict[tuple[str, str], Located] = {}
    for problem in problems:
        path = _written(problem.path, text)
        here = Located(text.place_of(path), problem._replace(path=path))
        found.setdefault((here.place, problem.message), here)
    return list(found.values())


def _written(path: DataPath, text: YamlDocument) -> DataPath:
    return as_written(path, text.value.get("spec")) if isinstance(text.value, dict) else path


def _as_problem(error: YamlRefused) -> Problem:
    return Problem.error((), error.reason)


def _duplicates(items: list[Manifest]) -> list[Located]:
    first: dict[DocumentKey, Manifest] = {}
    problems: list[Located] = []
    for item in items:
        key = item.document.key
        if key in first:
            message = f"{key} stands already at {first[key].place_of()}"
            problems.append(
                Located(item.place_of(("metadata", "name")), Problem.error(("metadata",), message))
            )
        first.setdefault(key, item)
    return problems


def _texts(paths: Iterable[Path | str]) -> Iterator[tuple[str, bytes]]:
    count = 0
    for path in paths:
        if str(path) == STDIN:
            yield "<stdin>", sys.stdin.buffer.read(BYTES_MAX + 1)
            continue
        for file in _files(Path(path)):
            count += 1
            if count > FILES_MAX:
                raise FileUnreadable(str(file), f"more than {FILES_MAX} files")
            yield str(file), read_bounded(file)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES)
    except OSError as error:
        raise FileUnreadable(str(path), error.strerror or str(error)) from None
    if not found:
        raise FileUnreadable(str(path), f"the folder has no {', '.join(SUFFIXES)} file")
    return found
