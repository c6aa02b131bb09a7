from conveyor_raft.core.proposals import Proposals
from conveyor_raft.core.types import Applied, Proposed, Unknown


def make() -> Proposals:
    proposals = Proposals()
    proposals.add(1, Proposed(1, 3, 2))
    proposals.add(2, Proposed(4, 4, 2))
    proposals.add(3, Proposed(5, 6, 2))
    return proposals


def test_a_proposal_is_applied_with_its_last_entry():
    """Half a batch is not an answer."""
    proposals = make()
    proposals.applied(2)
    assert proposals.finished == []
    proposals.applied(4)
    assert proposals.finished == [(1, Applied(1, 3)), (2, Applied(4, 4))]
    assert len(proposals) == 1


def test_what_is_committed_survives_the_loss_of_office():
    """The rest ends at once, each token once."""
    proposals = make()
    proposals.abandon(4, "gone")
    assert proposals.finished == [(3, Unknown(5, 6, 2, "gone"))]
    proposals.applied(9)
    assert [token for token, _ in proposals.finished] == [3, 1, 2]
    assert len(proposals) == 0


def test_a_batch_of_which_a_part_is_committed_is_unknown():
    """Whether all of it takes effect is not known."""
    proposals = make()
    proposals.abandon(2, "gone")
    assert {type(outcome) for _, outcome in proposals.finished} == {Unknown}
    assert len(proposals.finished) == 3


def test_a_snapshot_swallows_results():
    """The entries took effect, but nobody saw their results here."""
    proposals = make()
    proposals.skipped(4)
    assert [(token, type(outcome)) for token, outcome in proposals.finished] == [
        (1, Unknown),
        (2, Unknown),
    ]
