"""Lookup stages: values by key, put into the headers of the records that asked.

To the engine a lookup is a transform with one output per input. The sidecar opens the frame's
records, asks the service once for each distinct key that is not in the stage's cache, and adds the
headers of what was found; payloads are not touched. Keys without a value are handled as the stage
says: pass the record as it is, try again later, or make it a dead letter. Absence is cached like
presence, for the same time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import grpc.aio
from google.protobuf.message import DecodeError

from conveyor_registry.model import Miss
from conveyor_sdk.carrier.frame import write_u32
from conveyor_sdk.wire import closed_pb2, lookup_pb2, record_pb2
from conveyor_sidecar.core.effects import CallService
from conveyor_sidecar.core.events import CallFinished, Failure, FailureKind, Outputs
from conveyor_sidecar.core.routes import InstanceKey
from conveyor_sidecar.errors import ProtocolError
from conveyor_sidecar.routing.routing_table import StageFacts

FIND_METHOD = "/conveyor.service.v1.Lookup/Find"
_CACHED_KEYS_MAX = 100_000

Found = Mapping[str, str] | None
"""The headers of a key's value; None where there is none."""


class Lookups:
    """Finds values and remembers them per stage instance."""

    def __init__(self) -> None:
        self._caches: dict[InstanceKey, dict[bytes, tuple[float, Found]]] = {}

    async def find(
        self,
        channel: grpc.aio.Channel,
        effect: CallService,
        *,
        facts: StageFacts,
        call: record_pb2.Call,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...] | None,
    ) -> CallFinished:
        """Enrich the frame's records.

        Raises:
            ProtocolError: the answer breaks the contract.
            grpc.aio.AioRpcError: the call failed.
        """
        run = closed_pb2.RecordRun.FromString(effect.frame.body)
        cache = self._cache(effect.instance) if facts.cache_ms else {}
        now = time.monotonic()
        keys = [
            key
            for key in dict.fromkeys(record.key for record in run.records)
            if key not in cache or cache[key][0] <= now
        ]
        if keys:
            request = lookup_pb2.LookupRequest(call=call, keys=keys)
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                FIND_METHOD
            )
            data = await method(request.SerializeToString(), timeout=timeout_s, metadata=metadata)
            expires = now + facts.cache_ms / 1000
            for key, value in zip(keys, _values(data, len(keys)), strict=True):
                cache[key] = (expires, value)
        return _answer(effect, run.records, cache, facts.miss)

    def _cache(self, instance: InstanceKey) -> dict[bytes, tuple[float, Found]]:
        cache = self._caches.setdefault(instance, {})
        if len(cache) > _CACHED_KEYS_MAX:
            cache.clear()
        return cache


def _values(data: bytes, count: int) -> Sequence[Found]:
    try:
        answer = lookup_pb2.LookupResponse.FromString(data)
    except DecodeError as error:
        raise ProtocolError("the answer cannot be parsed as a LookupResponse") from error
    missing = answer.missing
    if len(answer.found) != count or (missing and len(missing) != count):
        raise ProtocolError(f"{count} keys were answered with {len(answer.found)} values")
    return [
        None if missing and missing[place] else dict(record.headers)
        for place, record in enumerate(answer.found)
    ]


def _answer(
    effect: CallService,
    records: Sequence[record_pb2.Record],
    found: Mapping[bytes, tuple[float, Found]],
    miss: Miss,
) -> CallFinished:
    enriched = closed_pb2.ClosedTransformResponse()
    parents: list[int] = []
    failures: list[Failure] = []
    for place, record in enumerate(records):
        headers = found[record.key][1]
        if headers is None and miss is not Miss.PASS:
            kind = FailureKind.RETRY if miss is Miss.RETRY else FailureKind.REJECT
            failures.append(Failure(place, kind, "the lookup has no value for the record's key"))
            continue
        if headers:
            record.headers.update(headers)
        enriched.records.append(record.SerializeToString())
        parents.append(place)
    body = enriched.SerializeToString()
    lengths = [_field_length(len(record)) for record in enriched.records]
    outputs = Outputs(
        body=body,
        lengths=write_u32(lengths),
        parents=parents,
        traceparent=effect.frame.traceparent,
    )
    return CallFinished(effect.call_id, outputs, tuple(failures))


def _field_length(length: int) -> int:
    """Bytes of a `records` field with its tag and length prefix."""
    return 1 + max(1, (length.bit_length() + 6) // 7) + length
