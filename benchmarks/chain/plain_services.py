"""A source, a transform and a sink as plain gRPC services, with as little work in them as possible.

One process each: ``python plain_services.py source|transform|sink PORT``. They know nothing of the
SDK's server. Records are 200 bytes and stay closed; what is measured is the road between them.

The source takes ``count`` (records in all) and ``batch`` (records in a message) from its
configuration; the sink writes ``<records> <first> <last>`` (monotonic seconds) to the file
``report`` when it has them all.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from conveyor_sdk.carrier import record_field
from conveyor_sdk.wire import closed_pb2, info_pb2, info_pb2_grpc, record_pb2, source_pb2

PACKAGE = "conveyor.service.v1"
RECORD = record_field(record_pb2.Record(payload=bytes(196)).SerializeToString())
BATCH_TAG = b"\x0a"


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class Info(info_pb2_grpc.ServiceInfoServicer):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def Describe(self, request, context):  # noqa: N802
        described = info_pb2.ServiceDescription(
            name=f"bench-{self.kind}",
            kind=info_pb2.Kind.Value(f"KIND_{self.kind.upper()}"),
            concurrency_max=16,
            bounded=self.kind == "source",
            stable_offsets=self.kind == "source",
        )
        return info_pb2.DescribeResponse(services=[described])


async def read(requests, context):
    """One partition, driven by credit, from prebuilt bytes."""
    granted = asyncio.Event()
    state = {"limit": 0, "config": None, "open": False}

    async def listen() -> None:
        while isinstance(data := await context.read(), bytes):
            request = source_pb2.ReadRequest.FromString(data)
            if request.HasField("call"):
                state["config"] = dict(request.call.config)
            if request.HasField("open"):
                state["open"] = True
            if request.HasField("credit"):
                state["limit"] = request.credit.records_limit
            granted.set()

    listener = asyncio.create_task(listen())
    try:
        sent = 0
        while not (state["open"] and state["config"]):
            granted.clear()
            await granted.wait()
        count, batch = int(state["config"]["count"]), int(state["config"]["batch"])
        body = RECORD * batch
        while sent < count:
            while sent >= state["limit"]:
                granted.clear()
                await granted.wait()
            header = source_pb2.SourceBatch(partition="0", offsets=range(sent, sent + batch))
            message = header.SerializeToString() + body
            await context.write(BATCH_TAG + varint(len(message)) + message)
            sent += batch
        done = source_pb2.ReadResponse(finished=source_pb2.Finished(partition="0"))
        await context.write(done.SerializeToString())
        await listener
    finally:
        listener.cancel()


async def process(request: bytes, context) -> bytes:
    """Every record as it came."""
    asked = closed_pb2.ClosedRequest.FromString(request)
    return closed_pb2.ClosedTransformResponse(
        records=asked.records, parents=range(len(asked.records)), batch_id=asked.batch_id
    ).SerializeToString()


class Sink:
    """Counts, and says so now and then."""

    def __init__(self) -> None:
        self.runs: dict[str, list[float]] = {}

    async def write(self, request: bytes, context) -> bytes:
        asked = closed_pb2.ClosedRequest.FromString(request)
        now = time.monotonic()
        run = self.runs.setdefault(asked.call.config["report"], [0, now, now])
        run[0] += len(asked.records)
        run[2] = now
        if run[0] >= int(asked.call.config["count"]):
            Path(asked.call.config["report"]).write_text(
                f"{run[0]:.0f} {run[1]} {run[2]}", encoding="utf-8"
            )
        return b""


async def main(kind: str, port: int) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {
        "source": {"Read": grpc.stream_stream_rpc_method_handler(read)},
        "transform": {"Process": grpc.unary_unary_rpc_method_handler(process)},
        "sink": {"Write": grpc.unary_unary_rpc_method_handler(Sink().write)},
    }[kind]
    name = f"{PACKAGE}.{kind.title()}"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    info_pb2_grpc.add_ServiceInfoServicer_to_server(Info(kind), server)
    names = (name, f"{PACKAGE}.ServiceInfo", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
