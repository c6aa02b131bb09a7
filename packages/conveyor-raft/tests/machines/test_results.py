"""Plain values come back as they went; everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.machines.key_value import KeyValueResult, KeyValueStateMachine
from conveyor_raft.machines.results import PlainResults, ResultCodec

PLAIN = PlainResults()
SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
SCALARS |= st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def same(left, right):
    """Equal, and of equal types all the way down."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, list | tuple):
        return all(map(same, left, right))
    if isinstance(left, dict):
        return all(map(same, left.values(), right.values()))
    return True


@given(VALUES)
def test_a_plain_value_comes_back_with_its_types(value):
    """A bool stays a bool, a tuple a tuple."""
    assert same(PLAIN.decode_result(PLAIN.encode_result(value)), value)


@pytest.mark.parametrize("value", [object(), {1, 2}, KeyValueResult(True, None), [object()]])
def test_what_is_not_plain_is_refused(value):
    """Nothing is guessed; a named tuple would come back as another type."""
    with pytest.raises(TypeError, match="is no plain value"):
        PLAIN.encode_result(value)


@pytest.mark.parametrize("previous", [None, b"", b"x"])
@pytest.mark.parametrize("changed", [True, False])
def test_the_results_of_the_key_value_machine_come_back(changed, previous):
    """It brings its own codec."""
    machine = KeyValueStateMachine()
    assert isinstance(machine, ResultCodec)
    result = KeyValueResult(changed, previous)
    assert machine.decode_result(machine.encode_result(result)) == result
