from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_registry.model import Edge, Graph


def graph(stages: str, *edges: str) -> Graph:
    return Graph(list(stages), [Edge(from_stage=e[0], to_stage=e[1]) for e in edges])


def test_fan_out_and_fan_in() -> None:
    """A diamond has both, and its order keeps the document's."""
    diamond = graph("adcb", "ab", "ac", "bd", "cd")
    assert [edge.to_stage for edge in diamond.outgoing("a")] == ["b", "c"]
    assert [edge.from_stage for edge in diamond.incoming("d")] == ["b", "c"]
    assert diamond.order() == ("a", "c", "b", "d")
    assert diamond.descendants("b") == {"b", "d"}
    assert diamond.ancestors("c") == {"a", "c"}
    assert diamond.cycle() is None


@pytest.mark.parametrize(
    ("edges", "path"),
    [(["aa"], "aa"), (["ab", "ba"], "aba"), (["ab", "bc", "cd", "db"], "bcdb")],
)
def test_a_cycle_is_named_as_a_path(edges: list[str], path: str) -> None:
    """The path begins and ends with the same stage, and order() refuses with it."""
    found = graph("abcd", *edges)
    assert found.cycle() == tuple(path)
    with pytest.raises(ValueError, match=" -> ".join(path)):
        found.order()


def test_edges_to_nowhere_are_left_out() -> None:
    """A graph of a broken document can still be walked."""
    assert graph("ab", "ab", "ax", "xb").order() == ("a", "b")


def test_a_long_chain_needs_no_recursion() -> None:
    """Depth is bounded by the document, not by the interpreter's stack."""
    ids = [f"s{i}" for i in range(3_000)]
    edges = [Edge(from_stage=a, to_stage=b) for a, b in pairwise(ids)]
    assert Graph(ids, edges).cycle() is None


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_order_and_cycle_agree(pairs: list[tuple[int, int]]) -> None:
    """Either there is an order in which all edges point forward, or a cycle along real edges."""
    ids = [f"s{i}" for i in range(8)]
    edges = [Edge(from_stage=ids[a], to_stage=ids[b]) for a, b in pairs]
    found = Graph(ids, edges)
    cycle = found.cycle()
    if cycle is None:
        place = {stage: i for i, stage in enumerate(found.order())}
        assert all(place[e.from_stage] < place[e.to_stage] for e in edges)
    else:
        joined = {(e.from_stage, e.to_stage) for e in edges}
        assert cycle[0] == cycle[-1]
        assert all(step in joined for step in pairwise(cycle))
