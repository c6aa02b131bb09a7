"""Batches of a source: numbered in their order, or refused with the reason."""

import pytest

from conveyor_sdk.carrier.frame import write_u64
from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.batches import BatchRefused, number_batch
from conveyor_sidecar.core.events import Oversize, SourceBatchRead
from conveyor_sidecar.core.routes import InstanceKey
from conveyor_sidecar.testing.harness import records_of

ORIGIN = Origin("p", "src", "0", 0, 3)


def batch(*names: str, **fields: object) -> SourceBatchRead:
    body, lengths = records_of(*names)
    values = {"position": b"p", **fields}
    return SourceBatchRead(InstanceKey("p", "src", 0), 1, "0", body, lengths, **values)


def test_ordinals_follow_those_given_before() -> None:
    """Numbers are dense and in reading order."""
    made = number_batch(batch("a", "b"), ORIGIN, 10, stable=False)
    assert (list(made.frame.offsets), made.end) == ([10, 11], 12)


def test_named_records_take_their_place_in_the_order() -> None:
    """Two before the first record, one between, one at the end."""
    named = (Oversize(0, 9), Oversize(0, 9), Oversize(1, 9), Oversize(2, 9))
    made = number_batch(batch("a", "b", oversize=named), ORIGIN, 5, stable=False)
    assert list(made.frame.offsets) == [7, 9]
    assert made.end == 11
    assert [failure.reason[:9] for _, failure in made.named] == [
        "record 5 ",
        "record 6 ",
        "record 8 ",
        "record 10",
    ]


def test_stable_offsets_are_the_source_s_own() -> None:
    """Gaps are fine; the end is after the last, named or not."""
    event = batch(
        "a", "b", offsets=write_u64([20, 30]), oversize=(Oversize(2, 9),), oversize_offsets=(31,)
    )
    made = number_batch(event, ORIGIN, 20, stable=True)
    assert list(made.frame.offsets) == [20, 30]
    assert made.end == 32


@pytest.mark.parametrize(
    ("fields", "stable", "text"),
    [
        ({"position": b""}, False, "0 bytes; it must have 1 to 1024"),
        ({"oversize": (Oversize(3, 1),)}, False, "outside of its batch"),
        ({"oversize": (Oversize(2, 1), Oversize(1, 1))}, False, "before another one"),
        ({"key_hashes": write_u64([1])}, False, "key_hashes has 8 bytes; 2 records need 16"),
        ({"offsets": write_u64([7])}, True, "2 records came with 1 offsets"),
        ({"offsets": write_u64([7, 8]), "oversize": (Oversize(0, 1),)}, True, "1 named ones"),
        ({"offsets": write_u64([7, 7])}, True, "offset 7 came after 7"),
        ({"offsets": write_u64([4, 8])}, True, "offset 4 came after 4"),
    ],
)
def test_a_batch_that_breaks_the_contract_is_refused(
    fields: dict[str, object], stable: bool, text: str
) -> None:
    """Nothing of it is used, and the text says what was wrong."""
    with pytest.raises(BatchRefused, match=text):
        number_batch(batch("a", "b", **fields), ORIGIN, 5, stable=stable)
