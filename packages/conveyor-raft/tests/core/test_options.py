import pytest

from conveyor_raft.core.options import CoreOptions


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heartbeat_interval_ms": 0}, "heartbeat_interval_ms"),
        ({"heartbeat_interval_ms": 150}, "below"),
        ({"election_timeout_max_ms": 150}, "greater"),
        ({"max_inflight_messages": 0}, "max_inflight_messages"),
        ({"snapshot_trailing_entries": -1}, "snapshot_trailing_entries"),
    ],
)
def test_what_the_algorithm_cannot_work_with_is_refused(changes, words):
    """The message names the option."""
    with pytest.raises(ValueError, match=words):
        CoreOptions(**changes)


def test_no_trail_is_allowed():
    """Zero is a bound like any other where it makes sense."""
    assert CoreOptions(snapshot_trailing_entries=0).snapshot_trailing_entries == 0
