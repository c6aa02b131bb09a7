"""Sources: records enter Conveyor.

`@source` serves an async generator that yields `(value, position)` pairs. It may ask, by parameter
name, for `resume` (where to go on, None at the start), `partition` (which of several it reads) and
`ctx`. One generator runs per open partition; it is closed, through its `finally` blocks, when the
partition goes to another owner or the process ends. It never runs ahead of what the sidecar has
granted by more than one batch, so it may produce as fast as it can.

Nothing is acknowledged by hand. When a record and all that was made of it has ended, its position
is committed; a function decorated with `@name.ended` is told, for queues that want to be told.

Without `stable_offsets` the position means "resume after this record" and comes back as `resume`.
With `stable_offsets=True` it is the record's own offset, an integer that grows within its partition
and names the same record at every replay, and `resume` is the first offset to read; only then can a
record that is read twice be recognised as the same.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any, overload

from conveyor_sdk.context import Context
from conveyor_sdk.definition import Options, Service, Shape, parameters
from conveyor_sdk.errors import DefinitionError, SdkError
from conveyor_sdk.position import OpaquePositions, Positions, StableOffsets
from conveyor_sdk.wire import info_pb2

PARTITIONS_MAX = 10_000
PARTITION_CHARS_MAX = 63
ONE_PARTITION = "0"
"""The name of the partition of a source that has one."""

Partitions = Iterable[str] | Callable[[], Iterable[str] | Awaitable[Iterable[str]]] | None
Ended = Callable[..., Any]


class Source(Service):
    """A declared source."""

    kind = info_pb2.KIND_SOURCE

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        *,
        partitions: Partitions,
        bounded: bool,
        stable_offsets: bool,
    ) -> None:
        super().__init__(function, options)
        if self.shape is not Shape.ASYNC_GENERATOR:
            raise self.refused(
                f"is {self.shape.value}; a source is an async generator: async def with "
                "`yield value, position` in it"
            )
        asked = set(parameters(self))
        if strangers := asked - {"resume", "partition", "ctx"}:
            raise self.refused(
                f"takes {', '.join(sorted(strangers))}; a source gets resume, partition and ctx, "
                "each if it asks for it"
            )
        if "resume" not in asked:
            raise self.refused(
                "does not take resume: after a crash it would begin anew and repeat every record"
            )
        if partitions is not None and "partition" not in asked:
            raise self.refused("has partitions but does not take partition: each would be the same")
        self.asked = asked
        self.partitions = partitions if callable(partitions) else self._checked(partitions)
        self.bounded = bounded
        self.stable_offsets = stable_offsets
        self.positions: Positions = StableOffsets() if stable_offsets else OpaquePositions()
        self.on_ended: Ended | None = None

    def ended(self, function: Ended) -> Ended:
        """Decorate the function that is told when records have ended.

        It is called with the partition's name, if it has two parameters, and the position (with
        stable offsets: the next offset) up to which everything has ended and is committed.
        """
        if len(inspect.signature(function).parameters) not in (1, 2):
            raise self.refused("the function for ended takes (position) or (partition, position)")
        self.on_ended = function
        return function

    async def partition_names(self) -> list[str]:
        """Return the partitions that there are now.

        Raises:
            SdkError: The function for partitions gave something else.
        """
        if not callable(self.partitions):
            return list(self.partitions)
        names = self.partitions()
        if inspect.isawaitable(names):
            names = await names
        try:
            return self._checked(names)
        except DefinitionError as error:
            raise SdkError(str(error)) from error

    def open(
        self, partition: str, resume: object, context: Context
    ) -> AsyncGenerator[object, None]:
        """Return a fresh generator for a partition."""
        given = {"partition": partition, "resume": resume, "ctx": context}
        generator: AsyncGenerator[object, None] = self.function(
            **{name: given[name] for name in self.asked}
        )
        return generator

    async def describe(self) -> info_pb2.ServiceDescription:
        """Return what `Describe` says of it."""
        description = await super().describe()
        description.partitions.extend(await self.partition_names())
        description.stable_offsets = self.stable_offsets
        description.bounded = self.bounded
        return description

    def _checked(self, names: Iterable[str] | None) -> list[str]:
        if names is None:
            return [ONE_PARTITION]
        if isinstance(names, str):
            raise self.refused(f"partitions={names!r}: give a list of names")
        listed = list(names)
        if not listed:
            raise self.refused("has no partitions; give at least one name")
        if len(listed) > PARTITIONS_MAX:
            raise self.refused(f"has {len(listed)} partitions; at most {PARTITIONS_MAX}")
        for name in listed:
            if not isinstance(name, str) or not 0 < len(name) <= PARTITION_CHARS_MAX:
                raise self.refused(
                    f"partition {name!r}: use text of 1 to {PARTITION_CHARS_MAX} characters"
                )
        if len(set(listed)) != len(listed):
            raise self.refused("names a partition twice")
        return listed


@overload
def source(function: Callable[..., Any], /) -> Source: ...
@overload
def source(
    *,
    name: str | None = None,
    version: str = "",
    labels: Mapping[str, str] | None = None,
    partitions: Partitions = None,
    bounded: bool = False,
    stable_offsets: bool = False,
) -> Callable[[Callable[..., Any]], Source]: ...
def source(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "",
    labels: Mapping[str, str] | None = None,
    partitions: Partitions = None,
    bounded: bool = False,
    stable_offsets: bool = False,
) -> Source | Callable[[Callable[..., Any]], Source]:
    """Declare a source; see the module for what the function may be.

    Args:
        function: The handler, when the decorator is used without parentheses.
        name: What manifests refer to; by default the function's name with `-` for `_`.
        version: For display.
        labels: For matching and display.
        partitions: Their names, or a function, plain or async, that lists them; None is one
            partition.
        bounded: The generator's end is the partition's end. Otherwise it is opened again a second
            later.
        stable_offsets: Positions are the records' own offsets; see the module.

    Raises:
        DefinitionError: The function cannot be a source.
    """
    options = Options(name, version, labels or {})

    def declare(handler: Callable[..., Any]) -> Source:
        return Source(
            handler,
            options,
            partitions=partitions,
            bounded=bounded,
            stable_offsets=stable_offsets,
        )

    return declare if function is None else declare(function)
