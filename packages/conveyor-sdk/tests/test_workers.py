"""Calls that are dropped before their handler begins."""

import asyncio
import gc
import threading
import warnings
from functools import partial

import pytest

from conveyor_sdk import transform
from conveyor_sdk.wire import transform_pb2
from conveyor_sdk.workers import Workers


@pytest.mark.asyncio
async def test_a_call_that_never_began_leaves_nothing_behind(monkeypatch):
    """The process stops while one call runs and another waits for its thread or its place."""
    begun, release = threading.Event(), threading.Event()

    @transform(name="slow", concurrency=2)
    def slow(value: bytes) -> bytes:
        begun.set()
        release.wait(10)
        return value

    monkeypatch.setattr("conveyor_sdk.workers.THREADS_MAX", 1)
    workers = Workers([slow])
    request = transform_pb2.TransformRequest()
    request.records.add(payload=b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls = [
            asyncio.create_task(workers.answer(slow, partial(slow.answer, request)))
            for _ in range(3)
        ]
        await asyncio.to_thread(begun.wait, 10)
        workers.close()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        del calls
        gc.collect()
        release.set()
