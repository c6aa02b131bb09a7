"""Settings from a file, the environment and flags; each outweighs the one before it.

Values are collected per setting together with where they came from, laid over each other and
validated once, so that a mistake is reported with its file and line, its variable or its flag, and
all mistakes at once. Unknown keys are refused: a setting that is silently ignored is found out in
production.

In the environment, a variable with a section (``CONVEYOR_CLUSTER__…``) must be known. One without
is refused only when it resembles a known one, because other programs and Kubernetes (which
announces a service named ``conveyor-router`` as ``CONVEYOR_ROUTER_SERVICE_HOST``) put their own
variables under the same prefix.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from conveyor_config.errors import FileUnreadable, Located, SettingsRefused, YamlRefused
from conveyor_config.settings import ProcessSettings, RouterSettings, Section, SidecarSettings
from conveyor_config.yaml import BYTES_MAX, YamlDocument, read_yaml
from conveyor_registry.model import Problem, nearest
from conveyor_registry.model.problem import Path as DataPath
from conveyor_registry.model.problem import problems_of

S = TypeVar("S", bound=ProcessSettings)

PREFIX = "CONVEYOR_"
_OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP)(_.+)?)?)")
_OF_OTHERS = frozenset({"CONVEYOR_ENDPOINT"})

logger = logging.getLogger(__name__)


def load_settings(
    model: type[S],
    *,
    file: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] = logger.info,
) -> S:
    """The settings of a process.

    Args:
        model: ``RouterSettings`` or ``SidecarSettings``.
        file: a file that must exist; None takes the model's default file if it exists.
        environ: the variables; None takes the process's own.
        flags: values by field (``"node_id"``) or by section and field
            (``"cluster.snapshot_interval"``); None values count as absent.
        notify: gets one sentence when the default file is absent.

    Raises:
        FileUnreadable: the file that was asked for cannot be read.
        YamlRefused: a file is not YAML.
        SettingsRefused: with every problem and its place.
    """
    collected = _Collected(model)
    document = _settings_file(model, file, notify)
    if document is not None:
        collected.add_file(document)
    collected.add_environment(os.environ if environ is None else environ)
    collected.add_flags(flags or {})
    settings: S = collected.settings()
    return settings


def variables(model: type[ProcessSettings]) -> dict[str, DataPath]:
    """Every variable that a process reads, with the path of its setting."""
    known: dict[str, DataPath] = {}
    for name, field in model.model_fields.items():
        section = _section_of(field)
        if section is None:
            known[_variable_of(name, field)] = (name,)
            continue
        for inner in section.model_fields:
            known[f"{PREFIX}{name}__{inner}".upper()] = (name, inner)
    return known


def _variable_of(name: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and isinstance(extra.get("variable"), str):
        return str(extra["variable"])
    return f"{PREFIX}{name}".upper()


def _nearest_variable(variable: str, known: Iterable[str]) -> str | None:
    """The known variable that was meant; what all have in common says nothing about it."""
    bare = {name.removeprefix(PREFIX): name for name in known if name.startswith(PREFIX)}
    close = nearest(variable.removeprefix(PREFIX), bare, cutoff=0.7)
    return bare[close] if close else None


def _section_of(field: FieldInfo) -> type[Section] | None:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return None


def _settings_file(
    model: type[ProcessSettings], file: Path | str | None, notify: Callable[[str], None]
) -> YamlDocument | None:
    path = Path(file) if file is not None else model.default_file
    if path is None:
        return None
    if file is None and not path.exists():
        notify(f"{path} does not exist: using defaults, environment and flags")
        return None
    documents = read_yaml(read_bounded(path), str(path))
    if len(documents) > 1:
        line = documents[1].line_of(())
        raise YamlRefused(str(path), line, 1, "a settings file has one document")
    return documents[0] if documents else None


def read_bounded(path: Path) -> bytes:
    """A file's bytes, at most one more than are read as YAML.

    Raises:
        FileUnreadable: with the system's reason.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(BYTES_MAX + 1)
    except OSError as error:
        raise FileUnreadable(str(path), error.strerror or str(error)) from None


class _Collected:
    """Values laid over each other, with the place that each came from."""

    def __init__(self, model: type[ProcessSettings]) -> None:
        self._model = model
        self._data: dict[str, Any] = {}
        self._places: dict[DataPath, str] = {}
        self._problems: list[Located] = []

    def add_file(self, document: YamlDocument) -> None:
        if not isinstance(document.value, dict):
            self._refuse(document.place_of(), (), "settings are a mapping of keys to values")
            return
        for path in document.lines:
            self._places[path] = document.place_of(path)
        for key, value in document.value.items():
            self._data[key] = dict(value) if isinstance(value, dict) else value
            field = self._model.model_fields.get(key)
            if value is None and field is not None and _section_of(field) is not None:
                self._data[key] = {}

    def add_environment(self, environ: Mapping[str, str]) -> None:
        known = variables(self._model)
        for variable, path in known.items():
            if variable in environ:
                self._set(path, environ[variable], f"environment variable {variable}")
        sections = {
            f"{PREFIX}{name}__".upper()
            for model in (RouterSettings, SidecarSettings)
            for name, field in model.model_fields.items()
            if _section_of(field) is not None
        }
        others = {*variables(RouterSettings), *variables(SidecarSettings), *_OF_OTHERS} - {*known}
        for variable in sorted(environ):
            if not variable.startswith(PREFIX) or variable in known or variable in others:
                continue
            close = _nearest_variable(variable, known)
            sectioned = "__" in variable
            if not sectioned and (close is None or _OF_KUBERNETES.fullmatch(variable)):
                continue
            message = "no setting has this name"
            if sectioned and not variable.startswith(tuple(sections)):
                message = "no section of the settings has this name"
            self._refuse(f"environment variable {variable}", (), message, close)

    def add_flags(self, flags: Mapping[str, Any]) -> None:
        for name, value in flags.items():
            if value is not None:
                path: DataPath = tuple(name.split("."))
                self._set(path, value, f"--{path[-1]}".replace("_", "-"))

    def _set(self, path: DataPath, value: Any, place: str) -> None:
        data = self._data
        for part in path[:-1]:
            inner = data.setdefault(str(part), {})
            if not isinstance(inner, dict):
                return
            data = inner
        data[str(path[-1])] = value
        for known in [p for p in self._places if p[: len(path)] == path]:
            del self._places[known]
        self._places[path] = place

    def _refuse(self, place: str, path: DataPath, message: str, close: str | None = None) -> None:
        self._problems.append(Located(place, Problem.error(path, message, close)))

    def settings(self) -> Any:
        try:
            settings = self._model.model_validate(self._data)
        except ValidationError as error:
            for problem in problems_of(error, self._model, self._data):
                self._problems.append(Located(self._place_of(problem.path), self._hinted(problem)))
        if self._problems:
            raise SettingsRefused(self._problems)
        return settings

    def _place_of(self, path: DataPath) -> str:
        while path:
            if path in self._places:
                return self._places[path]
            path = path[:-1]
        return f"{self._model.title} settings"

    def _hinted(self, problem: Problem) -> Problem:
        """A missing setting says how to give it."""
        if problem.path != ("node_id",) or "missing" not in problem.message:
            return problem
        message = (
            "node_id is missing: every router needs a number of its own; "
            "give --node-id, CONVEYOR_NODE_ID or node_id in the file"
        )
        return Problem.error((), message)
