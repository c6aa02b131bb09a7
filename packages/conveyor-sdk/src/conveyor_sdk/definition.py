"""What a decorated function is: a service with a name, a kind and a shape that its signature
decides.

One decorator per kind serves plain functions, coroutine functions and generators, of single records
or of batches. The signature says which; whatever cannot work is refused at the decorator, with the
function's name and file, not when the first record comes.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from conveyor_sdk.codec import Codec, codec_for
from conveyor_sdk.errors import DefinitionError
from conveyor_sdk.record import Record, from_wire
from conveyor_sdk.wire import info_pb2, record_pb2

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""The grammar of names."""
LABELS_MAX = 64
LABEL_BYTES_MAX = 256

Reader = Callable[[record_pb2.Record], object]
"""Makes what the handler asks for of a protobuf record; raises `CodecError`."""


class Shape(enum.Enum):
    """How a function answers."""

    PLAIN = "a plain function"
    COROUTINE = "an async function"
    GENERATOR = "a generator"
    ASYNC_GENERATOR = "an async generator"

    @property
    def on_loop(self) -> bool:
        """Whether it runs on the event loop; the others run in a thread."""
        return self in (Shape.COROUTINE, Shape.ASYNC_GENERATOR)


@dataclass(frozen=True, slots=True)
class Options:
    """What every decorator takes.

    Attributes:
        name: What manifests refer to; by default the function's name with `-` for `_`.
        version: For display.
        labels: For matching and display.
        timeout: How long one call may take, in seconds; None leaves it to the stage.
    """

    name: str | None = None
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


class Service:
    """A declared service. Calling it calls the function, so that it can be tested as what it is."""

    kind: info_pb2.Kind.ValueType

    def __init__(self, function: Callable[..., typing.Any], options: Options) -> None:
        written = _written(function)
        if not inspect.isroutine(written):
            raise DefinitionError(f"@{self.word} decorates a function, not {function!r}")
        self.function = function
        self.name = options.name or written.__name__.strip("_").replace("_", "-").lower()
        self.version = options.version
        self.labels = dict(options.labels)
        self.timeout = options.timeout
        self.shape = shape_of(function)
        if not NAME_PATTERN.fullmatch(self.name):
            raise self.refused(
                f"{self.name!r} is not a name: use up to 63 of a-z, 0-9 and - (name=...)"
            )
        if len(self.labels) > LABELS_MAX:
            raise self.refused(f"{len(self.labels)} labels; at most {LABELS_MAX} are kept")
        for label, value in self.labels.items():
            if max(len(label.encode()), len(value.encode())) > LABEL_BYTES_MAX:
                raise self.refused(f"label {label!r} is longer than {LABEL_BYTES_MAX} bytes")
        if self.timeout is not None and not 0 < self.timeout <= 600:
            raise self.refused(f"timeout={self.timeout}: use seconds, above 0 and at most 600")
        functools.update_wrapper(self, function, updated=())
        _declared.append(self)

    def __call__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        """Call the decorated function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.word} {self.name}>"

    @property
    def word(self) -> str:
        """The kind as a word."""
        return type(self).__name__.lower()

    def refused(self, why: str) -> DefinitionError:
        """Return the error that says where the function is and why it cannot be served."""
        written = _written(self.function)
        code = getattr(written, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return DefinitionError(f"@{self.word} {written.__name__}{where}: {why}")

    async def describe(self) -> info_pb2.ServiceDescription:
        """Return what `Describe` says of it."""
        description = info_pb2.ServiceDescription(
            name=self.name, kind=self.kind, version=self.version, labels=self.labels
        )
        if self.timeout is not None:
            description.call_timeout.FromTimedelta(timedelta(seconds=self.timeout))
        return description


def _written(function: Callable[..., typing.Any]) -> typing.Any:
    """Return the function as its author wrote it, below any `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


_declared: list[Service] = []


def declared_services() -> list[Service]:
    """Return the services that this process has declared, in order."""
    return list(_declared)


def shape_of(function: Callable[..., typing.Any]) -> Shape:
    """Return how `function` answers."""
    if inspect.isasyncgenfunction(function):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(function):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(function):
        return Shape.GENERATOR
    return Shape.PLAIN


def parameters(service: Service) -> dict[str, object]:
    """Return the names of the function's required parameters with their hints.

    Raises:
        DefinitionError: A parameter cannot be filled by name, or a hint cannot be resolved.
    """
    try:
        hints = typing.get_type_hints(_written(service.function))
    except Exception as error:
        raise service.refused(f"a type hint cannot be resolved: {error}") from error
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(service.function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise service.refused(f"{parameter} cannot be filled; name each parameter")
        if parameter.kind is parameter.POSITIONAL_ONLY and name == "ctx":
            raise service.refused("ctx is given by name; remove the / after it")
        if parameter.default is parameter.empty or name == "ctx":
            found[name] = hints.get(name, inspect.Parameter.empty)
    return found


@dataclass(frozen=True, slots=True)
class Input:
    """What a transform or a sink asks for.

    Attributes:
        batched: It takes a list of records.
        wants_context: It has a parameter `ctx`.
        read: Makes one value.
    """

    batched: bool
    wants_context: bool
    read: Reader


def input_of(service: Service) -> Input:
    """Return what the function of a transform or sink asks for.

    Raises:
        DefinitionError: It does not take one value, and perhaps `ctx`.
    """
    hints = parameters(service)
    wants_context = hints.pop("ctx", None) is not None
    if len(hints) != 1:
        raise service.refused(
            f"takes {', '.join(hints) or 'nothing'}; it gets one value (a record's, or with the "
            "hint list[...] a batch) and, if it asks for it, ctx"
        )
    ((name, hint),) = hints.items()
    batched = hint is list or typing.get_origin(hint) is list
    item: object = hint
    if batched:
        item = (typing.get_args(hint) or (typing.Any,))[0]
    whole = item is Record or typing.get_origin(item) is Record
    value = (typing.get_args(item) or (typing.Any,))[0] if whole else item
    codec = codec_for(typing.Any if isinstance(value, typing.TypeVar) else value)
    if codec is None:
        raise service.refused(
            f"no codec makes a {value!r} for {name}; use bytes, str, dict, a dataclass or Record"
        )
    return Input(batched, wants_context, _reader(codec, whole))


def _reader(codec: Codec, whole: bool) -> Reader:
    if whole:
        return lambda message: from_wire(message, codec)
    return lambda message: codec(message.payload)
