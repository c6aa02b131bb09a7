"""Forming a cluster: never from a part of the nodes, and with one first entry everywhere."""

from __future__ import annotations

import itertools
import random

import pytest

from conveyor_raft.core.types import Incarnation, Member, NodeId
from conveyor_raft.errors import FormationError, WrongIdentity
from conveyor_raft.formation import Answer, Formation, Verdict, check_hints, cluster_id_of


def card(node_id: int, incarnation: bytes = b"", address: str = "") -> Member:
    own = Incarnation(incarnation or bytes([node_id]) * 16)
    return Member(NodeId(node_id), address or f"n{node_id}:1", "", own)


class Node:
    """One process with its disk: it forms, restarts, and answers as it would over the wire."""

    def __init__(self, own: Member, peers: list[str]) -> None:
        self.own = own
        self.peers = peers
        self.boots = 0
        self.formed: Verdict | None = None
        self.up = True
        self.decides = True
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.boot = f"{self.own.node_id}/{self.own.incarnation!r}/{self.boots}".encode()
        self.formation = Formation(self.own, self.boot, dict.fromkeys(self.peers))

    def answer(self) -> Answer:
        if self.formed is not None:
            return Answer(self.own, self.boot, self.formed.cluster_id, self.formed.roster)
        return self.formation.answer()

    def decide(self) -> None:
        if self.formed is None and self.decides:
            self.formed = self.formation.verdict()


def ask(asker: Node, nodes: dict[str, Node], address: str) -> None:
    version = asker.formation.version
    target = nodes.get(address)
    if target is None or not target.up:
        asker.formation.on_silence(address, "connection refused")
    else:
        asker.formation.on_answer(address, target.answer(), version)
    asker.decide()


def cluster(count: int) -> dict[str, Node]:
    addresses = [f"n{n}:1" for n in range(1, count + 1)]
    return {address: Node(card(n), addresses) for n, address in enumerate(addresses, 1)}


def run_round(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        if node.up and node.formed is None:
            for address in node.formation.addresses:
                ask(node, nodes, address)


def test_three_empty_nodes_form_one_cluster_with_one_roster() -> None:
    """All decide for the same cluster id and the same members, own address in the list or not."""
    nodes = cluster(3)
    for _ in range(4):
        run_round(nodes)
    verdicts = {node.formed for node in nodes.values()}
    assert len(verdicts) == 1
    verdict = verdicts.pop()
    assert verdict is not None
    assert [c.node_id for c in verdict.roster] == [1, 2, 3]
    assert verdict.cluster_id == cluster_id_of(reversed(verdict.roster))


def test_a_node_without_peers_is_a_cluster_of_one() -> None:
    """Nobody to wait for: certain at once."""
    verdict = Formation(card(7), b"boot", {}).verdict()
    assert verdict is not None
    assert verdict.roster == (card(7),)


def test_a_part_of_the_nodes_never_forms() -> None:
    """With one of three silent for ever, nobody decides, and everybody says for whom he waits."""
    nodes = cluster(3)
    nodes["n3:1"].up = False
    for _ in range(20):
        run_round(nodes)
    assert nodes["n1:1"].formed is None
    assert nodes["n2:1"].formed is None
    assert nodes["n1:1"].formation.waiting_for() == ["n3:1 (connection refused)"]


def test_nodes_that_list_different_peers_wait_and_say_so() -> None:
    """B lists A alone, A lists B and C: neither may form its own idea of the cluster."""
    nodes = {
        "n1:1": Node(card(1), ["n2:1", "n3:1"]),
        "n2:1": Node(card(2), ["n1:1"]),
        "n3:1": Node(card(3), ["n1:1", "n2:1"]),
    }
    for _ in range(10):
        run_round(nodes)
    assert all(node.formed is None for node in nodes.values())
    assert "lists the nodes [1, 2], this node lists [1, 2, 3]" in " ".join(
        nodes["n1:1"].formation.waiting_for()
    )


def test_a_late_node_joins_what_the_others_formed_with_it() -> None:
    """Two have decided, the third crashed before: it joins, even when one of the two is gone."""
    nodes = cluster(3)
    first, third = nodes["n1:1"], nodes["n3:1"]
    third.decides = False
    for _ in range(4):
        run_round(nodes)
    assert first.formed is not None
    assert third.formed is None
    third.decides = True
    third.start()
    nodes["n2:1"].up = False
    run_round(nodes)
    assert third.formed == first.formed


def test_a_wiped_disk_is_refused_with_the_remedy() -> None:
    """The id is known with another incarnation: that vote is lost, so the node must not return."""
    nodes = cluster(3)
    for _ in range(4):
        run_round(nodes)
    wiped = Node(card(2, b"another" * 2), ["n1:1", "n3:1"])
    with pytest.raises(WrongIdentity, match=r"another data directory.*under a new id"):
        ask(wiped, nodes, "n1:1")


def test_a_stranger_is_refused() -> None:
    """A new id among the peers of a formed cluster is told who the members are."""
    nodes = cluster(3)
    for _ in range(4):
        run_round(nodes)
    stranger = Node(card(9), ["n1:1"])
    with pytest.raises(FormationError, match=r"nodes \[1, 2, 3\], and node 9 is not one"):
        ask(stranger, nodes, "n1:1")


def test_the_same_id_at_a_peer_is_refused() -> None:
    """Two processes with one id would both vote as one voter."""
    nodes = {"n1:1": Node(card(1), ["x:1"]), "x:1": Node(card(1, b"other", "x:1"), ["n1:1"])}
    with pytest.raises(FormationError, match="has the node id 1 as well"):
        ask(nodes["n1:1"], nodes, "x:1")


def test_the_same_id_at_two_peers_is_refused() -> None:
    """As above, seen by a third."""
    nodes = {
        "n1:1": Node(card(1), ["x:1", "y:1"]),
        "x:1": Node(card(2, b"a", "x:1"), []),
        "y:1": Node(card(2, b"b", "y:1"), []),
    }
    nodes["x:1"].formed = nodes["y:1"].formed = None
    ask(nodes["n1:1"], nodes, "x:1")
    with pytest.raises(FormationError, match="both have the node id 2"):
        ask(nodes["n1:1"], nodes, "y:1")


def test_an_expected_id_is_checked() -> None:
    """Peers given with ids must be found under them."""
    formation = Formation(card(1), b"boot", {"n2:1": 3})
    with pytest.raises(FormationError, match="node 3 is expected at n2:1, but node 2"):
        formation.on_answer("n2:1", Answer(card(2), b"other"), formation.version)


def test_another_name_of_this_process_is_ignored() -> None:
    """`localhost` may be oneself: the boot number tells."""
    formation = Formation(card(1), b"boot", {"localhost:1": None})
    formation.on_answer("localhost:1", Answer(card(1), b"boot"), formation.version)
    verdict = formation.verdict()
    assert verdict is not None
    assert [c.node_id for c in verdict.roster] == [1]


def test_peers_of_two_clusters_are_refused() -> None:
    """Nobody can belong to two clusters."""
    roster = (card(1), card(2))
    formation = Formation(card(1), b"boot", {"a:1": None, "b:1": None})
    formation.on_answer("a:1", Answer(card(2), b"2", b"A" * 32, roster), formation.version)
    formation.on_answer("b:1", Answer(card(3), b"3", b"B" * 32, roster), formation.version)
    with pytest.raises(FormationError, match="different clusters"):
        formation.verdict()


@pytest.mark.parametrize("foreign", [0, 1, 2])
def test_a_directory_of_another_cluster_is_refused_by_majority(foreign: int) -> None:
    """One odd peer is that peer's mistake; most of them being odd is ours."""
    answers = {
        f"p{n}": Answer(card(n + 2), b"", (b"B" if n < foreign else b"A") * 32) for n in range(2)
    }
    if foreign == 2:
        with pytest.raises(WrongIdentity, match="give this node its own data directory"):
            check_hints(b"A" * 32, list(answers), answers)
    else:
        check_hints(b"A" * 32, list(answers), answers)


@pytest.mark.parametrize("count", [2, 3])
def test_every_order_of_questions_ends_in_one_cluster(count: int) -> None:
    """All orders in which the nodes may ask each other in the first round give one roster."""
    pairs = list(itertools.permutations(range(1, count + 1), 2))
    for order in itertools.permutations(pairs):
        nodes = cluster(count)
        for asker, asked in order:
            node = nodes[f"n{asker}:1"]
            if node.formed is None:
                ask(node, nodes, f"n{asked}:1")
        for _ in range(5):
            run_round(nodes)
        assert len({node.formed for node in nodes.values()}) == 1
        assert nodes["n1:1"].formed is not None


@pytest.mark.parametrize("seed", range(300))
def test_restarts_moves_and_lost_answers_never_split_the_roster(seed: int) -> None:
    """Whatever happens in between, all that decide decide for the same members and addresses.

    Answers are delayed and lost, nodes restart, and come back at a new advertised address.
    """
    rng = random.Random(seed)
    nodes = cluster(3)
    in_flight: list[tuple[Node, bytes, str, Answer, int]] = []
    for _ in range(rng.randrange(20, 150)):
        asker = rng.choice(list(nodes.values()))
        action = rng.random()
        if action < 0.05 and asker.formed is None:
            asker.own = card(asker.own.node_id, address=f"moved{rng.randrange(2)}:1")
            asker.start()
        elif action < 0.1 and asker.formed is None:
            asker.start()
        elif action < 0.5 and asker.formed is None and asker.formation.addresses:
            address = rng.choice(asker.formation.addresses)
            version = asker.formation.version
            in_flight.append((asker, asker.boot, address, nodes[address].answer(), version))
        elif in_flight:
            node, boot, address, answer, version = in_flight.pop(rng.randrange(len(in_flight)))
            if boot == node.boot and node.formed is None and rng.random() > 0.1:
                node.formation.on_answer(address, answer, version)
                node.decide()
    assert len({node.formed for node in nodes.values() if node.formed}) <= 1
    for _ in range(6):
        run_round(nodes)
    assert len({node.formed for node in nodes.values()}) == 1
