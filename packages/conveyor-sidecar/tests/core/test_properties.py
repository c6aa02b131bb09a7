"""Fast paths against slow truths, over random histories."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_sdk.carrier.frame import merge_frames, write_u64
from conveyor_sidecar.core.dedup import SeenRecords
from conveyor_sidecar.core.delivery import Holding, Piece
from conveyor_sidecar.core.lane import LaneName, LaneProducer
from conveyor_sidecar.core.messages import Done
from conveyor_sidecar.core.routes import Instance, InstanceKey
from conveyor_sidecar.testing.harness import frame_of


class Open(Holding):
    """A frame that is under way."""

    def on_end(self) -> None:
        pass


runs = st.tuples(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(0, 2),
    st.sampled_from(["0", "1"]),
)
steps = st.lists(
    st.tuples(st.lists(runs, min_size=1, max_size=3), st.booleans(), st.integers(0, 20)),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_sink_s_memory_is_exact(history: list) -> None:
    """Whatever the form of frames, a record is fresh exactly if it was never seen nor stable."""
    seen = SeenRecords()
    known: set[tuple[str, int, int]] = set()
    stable = {"0": 0, "1": 0}
    for parts, ends, mark in history:
        frames = []
        for offsets, path, partition in parts:
            frame = frame_of(*["r"] * len(offsets), offsets=tuple(offsets), partition=partition)
            column = write_u64([path] * len(offsets)) if path else b""
            frames.append(replace(frame, paths_column=column))
        merged = merge_frames(frames)
        records = [(p, path, offset) for offsets, path, p in parts for offset in offsets]
        wanted = []
        for place, record in enumerate(records):
            if record not in known and record[2] >= stable[record[0]]:
                wanted.append(place)
                known.add(record)
        holding = Open()
        sighting = seen.see(merged, holding)
        fresh = list(range(len(records))) if sighting.fresh is None else sighting.fresh
        assert fresh == wanted
        assert sighting.duplicates == len(records) - len(wanted)
        if ends:
            holding.release()
        partition = parts[0][2]
        if mark > stable[partition]:
            stable[partition] = mark
            seen.raise_stable(frame_of("x", partition=partition).origins[0], mark)


dones = st.tuples(
    st.integers(0, 14), st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 12), st.lists(dones, max_size=6))
def test_done_releases_what_it_names_once(frames: int, words: list) -> None:
    """Marks and ranges in any order release each named frame once, and none that was not sent."""
    name = LaneName("p", 1, "a>b", InstanceKey("p", "a", 0), InstanceKey("p", "b", 0))
    lane = LaneProducer(1, name, 1, Instance("b", 0, 1, "peer", "peer:1", "s"))
    for _ in range(frames):
        lane.keep(Piece(frame_of("r"), ()))
    kept = set(range(1, frames + 1))
    for low, ranges in words:
        named = set(range(1, low + 1))
        for first, last in ranges:
            named |= set(range(first, last + 1))
        believed = max([low, *[last for _, last in ranges]]) <= frames
        wanted = sorted(kept & named) if believed else []
        got = sorted(piece.frame.sequence for piece in lane.take_done(Done(1, low, ranges)))
        assert got == wanted
        kept -= set(wanted)
    assert sorted(lane.retained) == sorted(kept)
    assert lane.outstanding_records == len(kept)
