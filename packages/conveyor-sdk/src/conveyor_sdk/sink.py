"""Sinks: records leave Conveyor.

`@sink` serves a function of one value, or of a batch if its parameter has the hint `list[...]`.
When the function returns, its records are written, durably: the position of their source moves on
after that, and nothing keeps them any longer. A record may be delivered more than once (after a
crash it must be), always with the same lineage, so a sink that uses `ctx.lineages` as a key, or
upserts by a key of its own, writes each record once in effect; it says so with `idempotent=True`.

A batched sink of which some records failed raises `Partial({place: exception})`; any other
exception fails all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

from conveyor_sdk.calls import Arguments, CalledService, Limits, Values, read_values
from conveyor_sdk.definition import Options, Shape
from conveyor_sdk.errors import Partial
from conveyor_sdk.failures import HANDLER_ERRORS, failures
from conveyor_sdk.wire import info_pb2, sink_pb2


class Sink(CalledService):
    """A declared sink."""

    kind = info_pb2.KIND_SINK

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        limits: Limits,
        *,
        idempotent: bool,
    ) -> None:
        super().__init__(function, options, limits)
        if self.shape in (Shape.GENERATOR, Shape.ASYNC_GENERATOR):
            raise self.refused("a sink returns when its records are written; it yields nothing")
        self.idempotent = idempotent

    async def describe(self) -> info_pb2.ServiceDescription:
        """Return what `Describe` says of it."""
        description = await super().describe()
        description.idempotent = self.idempotent
        return description

    async def answer(self, request: sink_pb2.SinkRequest, traceparent: str = "") -> bytes:
        """Return the serialized answer to a request; see `CalledService`."""
        values = read_values(self.input, request)
        arguments = Arguments(self.input.wants_context, request.call, values.lineages, traceparent)
        if self.input.batched:
            await self._batch(values, arguments)
        else:
            for index, value in zip(values.indexes, values.values, strict=True):
                try:
                    await self._write(value, arguments, (index,))
                except HANDLER_ERRORS as error:
                    values.errors[index] = error
        answer = sink_pb2.SinkResponse(batch_id=request.batch_id, failures=failures(values.errors))
        return answer.SerializeToString()

    async def _batch(self, values: Values, arguments: Arguments) -> None:
        if not values.values:
            return
        try:
            await self._write(values.values, arguments, values.indexes)
        except Partial as partial:
            strangers = [i for i in partial.failures if not 0 <= i < len(values.values)]
            if strangers:
                error = IndexError(
                    f"Partial names places {strangers} of a batch of {len(values.values)}"
                )
                values.errors.update(dict.fromkeys(values.indexes, error))
                return
            for place, failed in partial.failures.items():
                values.errors[values.indexes[place]] = failed
        except HANDLER_ERRORS as error:
            values.errors.update(dict.fromkeys(values.indexes, error))

    async def _write(self, value: object, arguments: Arguments, indexes: Any) -> None:
        written = self.function(value, **arguments.of(indexes))
        if self.shape is Shape.COROUTINE:
            await written
        elif inspect.isawaitable(written) or inspect.isgenerator(written):
            raise TypeError(
                f"{self.name} returned a {type(written).__name__} that nobody runs: nothing was "
                "written; declare the handler with async def"
            )


@overload
def sink(function: Callable[..., Any], /) -> Sink: ...
@overload
def sink(
    *,
    name: str | None = None,
    version: str = "",
    labels: Mapping[str, str] | None = None,
    timeout: float | None = None,
    batch: int = 0,
    batch_bytes: int = 0,
    concurrency: int = 1,
    idempotent: bool = False,
) -> Callable[[Callable[..., Any]], Sink]: ...
def sink(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "",
    labels: Mapping[str, str] | None = None,
    timeout: float | None = None,
    batch: int = 0,
    batch_bytes: int = 0,
    concurrency: int = 1,
    idempotent: bool = False,
) -> Sink | Callable[[Callable[..., Any]], Sink]:
    """Declare a sink; see the module for what the function may be.

    Args:
        function: The handler, when the decorator is used without parentheses.
        name: What manifests refer to; by default the function's name with `-` for `_`.
        version: For display.
        labels: For matching and display.
        timeout: Seconds that one call may take; None leaves it to the stage.
        batch: Records in one call at most; 0 leaves it to the sidecar.
        batch_bytes: Bytes in one call at most; 0 leaves it to the sidecar.
        concurrency: Calls of the handler at the same time.
        idempotent: A record written twice with the same lineage has one effect.

    Raises:
        DefinitionError: The function cannot be a sink.
    """
    options = Options(name, version, labels or {}, timeout)
    limits = Limits(batch, batch_bytes, concurrency)

    def declare(handler: Callable[..., Any]) -> Sink:
        return Sink(handler, options, limits, idempotent=idempotent)

    return declare if function is None else declare(function)
