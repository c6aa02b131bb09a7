"""The chain without sidecars: one client that reads, transforms and writes, 16 batches in flight.

``python direct.py SOURCE_PORT TRANSFORM_PORT SINK_PORT COUNT BATCH REPORT``. It keeps no account of
anything: no custody, no retry, no positions. It is the floor that the road with sidecars is held
against.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio

from conveyor_sdk.carrier import (
    encode_call,
    service_request,
    split_read_response,
    split_transform_response,
)
from conveyor_sdk.wire import record_pb2, source_pb2

IN_FLIGHT = 16
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def main(ports: list[int], count: int, batch: int, report: str) -> None:
    source, transform, sink = (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) for port in ports
    )
    call = record_pb2.Call(config={"count": str(count), "batch": str(batch), "report": report})
    header = encode_call(call)
    process = transform.unary_unary("/conveyor.service.v1.Transform/Process")
    write = sink.unary_unary("/conveyor.service.v1.Sink/Write")
    reading = source.stream_stream("/conveyor.service.v1.Source/Read")()
    opening = source_pb2.ReadRequest(
        open=source_pb2.OpenPartition(partition="0", from_start=True), call=call
    )
    credit = source_pb2.ReadRequest(
        credit=record_pb2.Credit(records_limit=2**62, bytes_limit=2**62)
    )
    await reading.write(opening.SerializeToString())
    await reading.write(credit.SerializeToString())
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def carry(body: bytes) -> None:
        try:
            answer = split_transform_response(
                await process(service_request(header, [body], b"", 1))
            )
            await write(service_request(header, [answer.body], b"", 1))
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        while isinstance(data := await reading.read(), bytes):
            answer = split_read_response(data)
            if answer.batch is None:
                break
            await slots.acquire()
            group.create_task(carry(answer.batch.body))
    reading.cancel()
    for channel in (source, transform, sink):
        await channel.close()


if __name__ == "__main__":
    asyncio.run(
        main([int(p) for p in sys.argv[1:4]], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    )
