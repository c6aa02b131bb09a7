"""Credit and the budget: promises are counted, bounded, and never a deadlock."""

from conveyor_sidecar.core.buffer import Budget
from conveyor_sidecar.core.credit import Credit
from conveyor_sidecar.core.options import EngineOptions

OPTIONS = EngineOptions(
    "me", "boot", frame_records=10, frame_bytes=1_000, lane_window_bytes_max=8_000
)


def budget(records: int = 1_000, size: int = 100_000) -> Budget:
    return Budget(records, size, 0.8)


def test_the_first_grant_is_two_frames() -> None:
    """Without a known drain rate a lane may have two frames under way."""
    credit = Credit(OPTIONS, budget(), 0)
    assert credit.renew(0, 0, 1_000, idle=True)
    assert (credit.records_limit, credit.bytes_limit) == (20, 2_000)


def test_no_grant_before_half_is_used() -> None:
    """Grants are renewed in halves, so that they cost few messages."""
    credit = Credit(OPTIONS, budget(), 0)
    credit.renew(0, 0, 1_000, idle=True)
    credit.receive(9, 900)
    assert not credit.renew(0, 0, 1_000, idle=False)
    credit.receive(2, 200)
    assert credit.renew(0, 0, 1_000, idle=False)
    assert credit.records_limit == 31


def test_what_waits_is_not_granted_again() -> None:
    """Records that the service has not taken use up the window."""
    credit = Credit(OPTIONS, budget(), 0)
    credit.renew(0, 0, 1_000, idle=True)
    credit.receive(20, 2_000)
    assert not credit.renew(20, 2_000, 1_000, idle=False)


def test_a_tight_budget_halves_new_credit() -> None:
    """Above the threshold a window is half as large."""
    shared = budget(records=1_000)
    shared.records = 850
    credit = Credit(OPTIONS, shared, 0)
    credit.renew(0, 0, 1_000, idle=True)
    assert credit.records_limit == 10


def test_an_exhausted_budget_leaves_one_frame_to_an_idle_lane() -> None:
    """A full process still moves: one frame of any size may start on a lane with nothing open."""
    shared = budget(records=100)
    shared.records = 100
    credit = Credit(OPTIONS, shared, 0)
    assert not credit.renew(0, 0, 1_000, idle=False)
    assert credit.renew(0, 0, 1_000, idle=True)
    assert credit.records_limit == 1
    credit.receive(10, 5_000)
    assert not credit.renew(10, 5_000, 1_000, idle=False)


def test_promises_are_accounted_exactly() -> None:
    """What was promised and not used is given back when the lane closes."""
    shared = budget()
    credit = Credit(OPTIONS, shared, 0)
    credit.renew(0, 0, 1_000, idle=True)
    assert (shared.promised_records, shared.promised_bytes) == (20, 2_000)
    credit.receive(15, 2_500)
    assert (shared.promised_records, shared.promised_bytes) == (5, 0)
    credit.close()
    assert (shared.promised_records, shared.promised_bytes) == (0, 0)


def test_the_window_follows_the_drain_rate_up_to_its_maximum() -> None:
    """A fast consumer gets what it drains in the drain window, never more than the maximum."""
    credit = Credit(OPTIONS, budget(10**9, 10**9), 0)
    for now in range(0, 2_000, 50):
        credit.drain.add(1_000, 100_000, now)
    credit.renew(0, 0, 10**9, idle=True)
    assert credit.bytes_limit == 8_000
    assert 2_000 < credit.records_limit <= 5_000


def test_the_stage_bound_limits_a_grant() -> None:
    """No more records are promised than the stage may hold."""
    credit = Credit(OPTIONS, budget(), 0)
    credit.renew(0, 0, 7, idle=True)
    assert credit.records_limit == 7
