from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.quorum import (
    VoteResult,
    is_quorum,
    joint_quorum_index,
    joint_vote_result,
    majority,
    quorum_index,
    vote_result,
)

half = st.sets(st.integers(1, 7), min_size=1, max_size=5).map(lambda ids: tuple(sorted(ids)))
halves = st.lists(half, min_size=1, max_size=2)


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


@given(halves, st.data())
def test_the_joint_quorum_index_is_what_counting_finds(halves, data):
    """The highest index that a majority of each half has stored, against brute force."""
    stored = {voter: data.draw(st.integers(0, 20)) for half in halves for voter in half}
    expected = max(
        index
        for index in range(21)
        if all(
            sum(stored[voter] >= index for voter in half) >= majority(len(half)) for half in halves
        )
    )
    assert joint_quorum_index(halves, stored) == expected


@given(halves, st.dictionaries(st.integers(1, 9), st.booleans()))
def test_a_joint_vote_is_decided_when_no_further_answer_can_change_it(halves, votes):
    """Against brute force over all ways in which those who are silent may still vote."""
    silent = sorted({voter for half in halves for voter in half} - votes.keys())
    ends = set()
    for answers in product((True, False), repeat=len(silent)):
        all_votes = {**votes, **dict(zip(silent, answers, strict=True))}
        yes = {voter for voter, granted in all_votes.items() if granted}
        ends.add(is_quorum(halves, yes))
    result = joint_vote_result(halves, votes)
    assert (
        result
        is {
            frozenset({True}): VoteResult.WON,
            frozenset({False}): VoteResult.LOST,
            frozenset({True, False}): VoteResult.PENDING,
        }[frozenset(ends)]
    )


def test_without_voters_nothing_is_won():
    """An empty node neither wins an election nor is a quorum."""
    assert joint_vote_result((), {1: True}) is VoteResult.LOST
    assert not is_quorum((), {1, 2})


def test_every_overlap_of_two_halves_meets_itself_and_both_halves():
    """Exhaustive: a joint quorum shares a member with every joint quorum, old and new one."""
    for old, new in product(
        [half for size in (1, 2, 3) for half in combinations(range(1, 6), size)], repeat=2
    ):
        everybody = sorted({*old, *new})
        groups = [
            set(group)
            for size in range(len(everybody) + 1)
            for group in combinations(everybody, size)
        ]
        joint = [group for group in groups if is_quorum((new, old), group)]
        alone = [group for group in groups if is_quorum((new,), group) or is_quorum((old,), group)]
        assert all(a & b for a in joint for b in alone)
