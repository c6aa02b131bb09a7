from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.quorum import VoteResult, majority, quorum_index, vote_result


def test_any_two_majorities_share_a_member():
    """Exhaustive for up to seven voters."""
    for size in range(1, 8):
        groups = list(combinations(range(size), majority(size)))
        assert all(set(a) & set(b) for a, b in product(groups, groups))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_the_quorum_index_is_what_counting_finds(stored):
    """The highest index that a majority has, in whatever order the voters stand."""
    needed = majority(len(stored))
    expected = max(i for i in range(51) if sum(own >= i for own in stored) >= needed)
    assert quorum_index(stored) == expected
    assert quorum_index(reversed(stored)) == expected


@given(st.integers(1, 7), st.dictionaries(st.integers(0, 9), st.booleans()))
def test_a_vote_is_decided_when_no_further_answer_can_change_it(size, votes):
    """Against brute force over all answers that are still open; strangers never count."""
    voters = range(size)
    open_voters = [voter for voter in voters if voter not in votes]
    granted = sum(votes.get(voter, False) for voter in voters)
    ends = {granted + more >= majority(size) for more in range(len(open_voters) + 1)}
    expected = {
        frozenset({True}): VoteResult.WON,
        frozenset({False}): VoteResult.LOST,
        frozenset({True, False}): VoteResult.PENDING,
    }[frozenset(ends)]
    assert vote_result(voters, votes) is expected
