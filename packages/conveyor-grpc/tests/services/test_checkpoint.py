"""Positions of sources."""

from typing import Any

import pytest

from conveyor_grpc import errors
from conveyor_grpc.wire import checkpoint_pb2 as wire


def commit(partition: str, term: int, ordinal: int, **fields: Any) -> wire.PositionCommit:
    return wire.PositionCommit(
        pipeline="default/flights",
        stage="in",
        partition=partition,
        term=term,
        ordinal=ordinal,
        **fields,
    )


async def terms(cluster: Any) -> dict[str, int]:
    await cluster.run_flights()
    rows = (await cluster.leader.state()).partitions_of("default/flights")
    return {row.partition: row.term for row in rows}


@pytest.mark.asyncio
async def test_each_item_has_its_answer(cluster: Any) -> None:
    """An old owner is fenced without harm to the others of the same request."""
    term = await terms(cluster)
    answer = await cluster.checkpoints.commit_positions(
        "a",
        [
            commit("p0", term["p0"], 10, position=b"ten"),
            commit("p1", term["p1"] - 1, 5, position=b"five"),
            commit("p9", 1, 1),
            commit("p1", term["p1"] + 1, 5),
        ],
    )
    assert [result.outcome for result in answer.results] == [
        wire.COMMIT_OUTCOME_COMMITTED,
        wire.COMMIT_OUTCOME_FENCED,
        wire.COMMIT_OUTCOME_UNKNOWN_PARTITION,
        wire.COMMIT_OUTCOME_REFUSED,
    ]
    assert answer.results[1].current_term == term["p1"]
    (position,) = await cluster.checkpoints.get_positions("default/flights")
    assert (position.partition, position.ordinal, position.position) == ("p0", 10, b"ten")
    assert position.committed_at.seconds > 0


@pytest.mark.asyncio
async def test_commits_may_be_repeated_and_come_late(cluster: Any) -> None:
    """Positions only move on."""
    term = await terms(cluster)
    for ordinal in (10, 10, 7):
        answer = await cluster.checkpoints.commit_positions(
            "a", [commit("p0", term["p0"], ordinal, position=str(ordinal).encode())]
        )
        assert answer.results[0].outcome == wire.COMMIT_OUTCOME_COMMITTED
    (position,) = await cluster.checkpoints.get_positions("default/flights", "in")
    assert position.position == b"10"


@pytest.mark.asyncio
async def test_finished_partitions_complete_the_pipeline(cluster: Any) -> None:
    """When all partitions of all bounded sources have ended."""
    term = await terms(cluster)
    ends = [commit(name, term[name], 3, position=b"end", finished=True) for name in ("p0", "p1")]
    await cluster.checkpoints.commit_positions("a", ends)
    await cluster.leader.plan()
    status = await cluster.admin.pipeline_status("flights")
    assert status.summary.phase == "Completed"
    assert all(position.finished for position in status.positions)


@pytest.mark.asyncio
async def test_a_position_has_a_bound(cluster: Any) -> None:
    """An opaque position of more than 1 KiB is refused."""
    term = await terms(cluster)
    with pytest.raises(errors.InvalidRequestError, match="position"):
        await cluster.checkpoints.commit_positions(
            "a", [commit("p0", term["p0"], 1, position=b"x" * 1025)]
        )


@pytest.mark.asyncio
async def test_an_empty_commit_is_answered(cluster: Any) -> None:
    """Nothing to record is no error, and no entry."""
    answer = await cluster.checkpoints.commit_positions("a", [])
    assert not answer.results


@pytest.mark.asyncio
async def test_positions_of_nothing_are_not_found(cluster: Any) -> None:
    """A misspelt pipeline is not an empty one."""
    with pytest.raises(errors.NotFoundError, match="namespace/name"):
        await cluster.checkpoints.get_positions("flights")
