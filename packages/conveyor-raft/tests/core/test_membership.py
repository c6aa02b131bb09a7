import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.membership import Membership, MembershipHistory
from conveyor_raft.core.types import Member
from conveyor_raft.errors import Corrupt, InvariantViolation

members = st.builds(
    Member,
    st.integers(1, 2**60),
    st.text(max_size=20),
    st.text(max_size=20),
    st.binary(max_size=16),
)
memberships = st.lists(members, min_size=1, max_size=7, unique_by=lambda m: m.node_id).map(
    lambda found: Membership(tuple(found))
)


@given(memberships, st.randoms())
def test_equal_memberships_are_equal_bytes(membership, shuffler):
    """Every node of a new cluster encodes the first entry itself, in any order of its peers."""
    shuffled = list(membership.members)
    shuffler.shuffle(shuffled)
    again = Membership(tuple(shuffled))
    assert again == membership
    assert again.encode() == membership.encode()
    assert Membership.decode(membership.encode()) == membership


@given(memberships, st.data())
def test_a_damaged_membership_is_corrupt(membership, data):
    """No cut-off payload is taken for a smaller cluster."""
    encoded = membership.encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for bad in (encoded[:cut], encoded + b"x", b"\x09" + encoded[1:]):
        with pytest.raises(Corrupt):
            Membership.decode(bad)


def test_a_membership_can_decide(membership):
    """Members are found by id; nobody or somebody twice is refused."""
    three = membership(3)
    assert three.voters == (1, 2, 3)
    assert three.get(2).raft_address == "node-2:1"
    assert three.get(4) is None
    for bad in ((), (Member(1, "a"), Member(1, "b"))):
        with pytest.raises(ValueError, match="each id once"):
            Membership(bad)


def test_the_history_rolls_back(membership):
    """A truncated configuration gives way to the one before it; a compacted one stays in force."""
    one, two, three = (membership(n) for n in (1, 2, 3))
    history = MembershipHistory([(1, one)])
    history.append(5, two)
    history.append(9, three)
    assert [history.at(i) for i in (1, 4, 5, 8, 9, 20)] == [one, one, two, two, three, three]
    history.compact(6)
    assert [index for index, _ in history.entries] == [5, 9]
    history.truncate_from(9)
    assert history.active == two
    history.truncate_from(5)
    assert history.active is None
    with pytest.raises(InvariantViolation, match="no configuration"):
        history.at(3)
