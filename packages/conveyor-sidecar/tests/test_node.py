"""Whole sidecars in this process, with real gRPC, real services and a router made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from conveyor_sdk import Server, sink, source, transform

STRAIGHT = {"spec": {"source": "numbers", "steps": ["double"], "sink": "collect"}}


def numbers(count: int):
    @source(name="numbers", partitions=["a", "b"], bounded=True)
    async def read(partition: str, resume: bytes | None) -> AsyncIterator[tuple[int, bytes]]:
        first = int(resume) if resume else 0
        for number in range(first, count):
            yield (number if partition == "a" else -number, str(number + 1).encode())

    return read


@pytest.mark.asyncio
async def test_records_flow_through_three_sidecars_and_the_positions_are_committed(
    router, sidecar
) -> None:
    """Source, transform and sink beside three sidecars: every record arrives once, all is
    committed, and every sidecar leaves clean."""
    written: list[int] = []

    @transform(name="double")
    def double(value: int) -> int | None:
        return None if value % 10 == 3 else 2 * value

    @sink(name="collect")
    async def collect(values: list[int]) -> None:
        written.extend(values)

    async with (
        Server([numbers(1000)]) as one,
        Server([double]) as two,
        Server([collect]) as three,
    ):
        for name, server in (("a", one), ("b", two), ("c", three)):
            await sidecar(name, server.port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(STRAIGHT)
        await router.until(
            lambda: (
                len(router.positions) == 2
                and all(position.finished for position in router.positions.values())
            )
        )
    expected = [2 * n for n in range(1000) if n % 10 != 3]
    expected += [-2 * n for n in range(1000) if -n % 10 != 3]
    assert sorted(written) == sorted(expected)
