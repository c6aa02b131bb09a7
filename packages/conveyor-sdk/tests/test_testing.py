"""run_pipeline: what a user's own tests rest on."""

from __future__ import annotations

import pytest

from conveyor_sdk import Busy, Reject, Retry, SdkError, sink, source, transform
from conveyor_sdk.testing import run_pipeline, run_pipeline_async, source_of


def test_a_chain_runs_to_its_end():
    """Records, filtered, written, dead letters and positions add up."""
    kept = []

    @transform
    def priced(order: dict):
        if order["quantity"] == 0:
            return None
        if order["quantity"] < 0:
            raise Reject("no such quantity")
        return {**order, "total": order["quantity"] * 2}

    @sink
    def save(orders: list[dict]):
        kept.extend(orders)

    run = run_pipeline(source_of([{"quantity": n} for n in (0, 1, -1, 2)]), priced, save)
    assert run.written == kept == [{"quantity": n, "total": 2 * n} for n in (1, 2)]
    assert (run.records_read, run.filtered, run.positions) == (4, 1, {"0": 4})
    (letter,) = run.dead_letters
    assert (letter.stage, letter.payload) == ("priced", b'{"quantity":-1}')
    assert (letter.reason, letter.attempts) == ("no such quantity", 1)


def test_failures_are_tried_again_and_then_given_up():
    """Retry counts as an attempt, Busy does not."""
    tries = {"retry": 0, "busy": 0, "twice": 0}

    @transform
    def fragile(name: str, ctx):
        tries[name] += 1
        if name == "busy" and tries[name] <= 10:
            raise Busy
        if name == "retry" or (name == "twice" and ctx.attempt < 2):
            raise Retry("again")
        return name

    run = run_pipeline(source_of(tries), fragile, attempts=3)
    assert sorted(run.written) == [b"busy", b"twice"]
    assert [letter.reason for letter in run.dead_letters] == ["again"]
    assert tries["retry"] == 3


def test_duplicates_prove_idempotency():
    """Each batch twice, with the same lineage: a keyed sink keeps one of each."""
    by_lineage, appended = {}, []

    @sink(idempotent=True)
    def keyed(values: list, ctx):
        by_lineage.update(zip(ctx.lineages, values, strict=True))
        appended.extend(values)

    run_pipeline(source_of(range(5)), keyed, duplicate=True)
    assert sorted(by_lineage.values()) == list(range(5))
    assert len(appended) == 10


def test_unbounded_and_partitioned_sources():
    """So many records of each; resume as the source yields positions."""

    @source(partitions=["a", "b"])
    async def endless(partition, resume):
        number = resume or 0
        while True:
            number += 1
            yield f"{partition}{number}", number

    with pytest.raises(SdkError, match="say how many records"):
        run_pipeline(endless)
    run = run_pipeline(endless, records=3, resume={"a": 7})
    assert run.written == [b"a8", b"a9", b"a10"]
    assert run.positions == {"a": 10}


def test_a_source_that_fails_is_reported():
    """The run ends; what was read before is written."""

    @source(bounded=True)
    async def broken(resume):
        yield 1, 1
        raise OSError("unplugged")

    run = run_pipeline(broken)
    assert run.written == [1]
    assert run.source_failures == {"0": "OSError: unplugged"}


@pytest.mark.asyncio
async def test_tombstones_and_async_tests():
    """Records above the limit are named in the result."""
    run = await run_pipeline_async(source_of([b"a", bytes(5 * 2**20), b"b"]))
    assert run.written == [b"a", b"b"]
    assert [o.offset for o in run.oversize] == [1]
    assert run.positions == {"0": 3}


def test_a_sink_ends_a_pipeline():
    """Anything after it is a mistake in the test."""
    keep = sink(name="keep")(lambda value: None)
    with pytest.raises(SdkError, match="before the end"):
        run_pipeline(source_of([1]), keep, keep)
