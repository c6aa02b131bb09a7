"""What a script says beside its messages: forged messages, expectations, and nodes in words.

`forge` makes a message that no node has sent: late, foreign, of another stream. `expect` states the
point of a scenario in the script itself, so that `--rewrite` can renew a transcript but never turn
a broken scenario into the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conveyor_raft.core import messages
from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import Message
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.types import (
    EntryKind,
    Incarnation,
    LogId,
    LogIndex,
    NodeId,
    Refused,
    RefusedReason,
    Term,
)
from conveyor_raft.testing.simulated_node import SimulatedNode


def paper_options(named: Mapping[str, str]) -> CoreOptions:
    """Return options for the elections of the paper, unless the script says otherwise."""
    numbers: dict[str, Any] = {"pre_vote": 0, "check_quorum": 0}
    numbers |= {name: int(value) for name, value in named.items()}
    return CoreOptions(**numbers)


class NoChance:
    """Every draw is the smallest: timers run out when the script says so."""

    def randint(self, a: int, _b: int, /) -> int:
        """Return the smallest."""
        return a


def forge_message(nodes: Mapping[int, SimulatedNode], words: Sequence[str]) -> Message:
    """Build the message `A->B Kind term=T field=value...`.

    `7/2` is entry 7 of term 2; `frames=8/2:x,y` are the commands x and y from entry 8 of term 2 on;
    a field that is not given is 0, or empty. `term` is the envelope's, as are `cluster=NAME` and
    `incarnation=NAME`; a term in the message itself is `body.term=T`.

    Raises:
        ValueError: there is no such message, or it has no such field.
    """
    link, kind = words[:2]
    named = dict(word.split("=", 1) for word in words[2:])
    sender, to = map(int, link.split("->"))
    identity = nodes[to].identity
    term = Term(int(named.pop("term")))
    cluster = named.pop("cluster", "")
    incarnation = named.pop("incarnation", str(sender))
    body_type: Any = getattr(messages, kind, None)
    if body_type is None:
        raise ValueError(f"there is no message {kind}")
    named = {name.removeprefix("body."): value for name, value in named.items()}
    unknown = sorted(named.keys() - set(body_type._fields))
    if unknown:
        raise ValueError(f"{kind} has no {', '.join(unknown)}, but {', '.join(body_type._fields)}")
    fields = {
        name: _parse(named[name]) if name in named else () if name == "frames" else 0
        for name in body_type._fields
    }
    return Message(
        type(identity.cluster_id)(cluster.encode()) if cluster else identity.cluster_id,
        NodeId(sender),
        Incarnation(incarnation.encode()),
        NodeId(to),
        term,
        body_type(**fields),
    )


def _parse(text: str) -> Any:
    place, colon, commands = text.partition(":")
    index, slash, term = place.partition("/")
    if not slash:
        return int(text)
    if not colon:
        return LogId(LogIndex(int(index)), Term(int(term)))
    payloads = [command.encode() for command in commands.split(",")]
    frame = Frame.build(LogIndex(int(index)), Term(int(term)), 0, EntryKind.COMMAND, payloads)
    return (frame,)


def unmet_expectations(node: SimulatedNode, named: Mapping[str, str]) -> list[str]:
    """Compare a node with what is expected of it; return what differs."""
    facts = dict(_facts(node))
    named = {name.removeprefix("body."): value for name, value in named.items()}
    unknown = sorted(named.keys() - facts.keys())
    if unknown:
        raise ValueError(f"no fact {', '.join(unknown)}; there are {', '.join(facts)}")
    return [
        f"{name} is {facts[name]}, not {value}"
        for name, value in named.items()
        if facts[name] != value
    ]


def _facts(node: SimulatedNode) -> Iterator[tuple[str, str]]:
    core, disk = node.core, node.disk
    yield "role", "down" if node.down else core.role.value
    yield "leader", str(core.leader_id or 0)
    yield "term", str(core.term)
    yield "last", f"{core.last_id.index}/{core.last_id.term}"
    yield "commit", str(core.commit_index)
    yield "applied", str(core.applied_index)
    yield "snapshot", str(0 if core.snapshot is None else core.snapshot.index)
    yield "first", str(core.first_index)
    yield "disk_term", str(disk.hard_state.term)
    yield "disk_vote", str(disk.hard_state.voted_for or 0)
    yield "disk_last", str(disk.last_index)
    yield "state", f"{node.state:08x}"
    members = core.membership
    if members is not None:
        for name in ("voters", "learners", "outgoing"):
            yield name, ",".join(map(str, getattr(members, name))) or "none"
    for peer, progress in core.progress.items():
        yield f"match{peer}", str(progress.match)
        yield f"next{peer}", str(progress.next)
        yield f"stream{peer}", type(progress.state).__name__.lower()
    for counter, count in core.statistics().items():
        yield counter, str(count)


def describe_entries(frames: Sequence[Frame]) -> Iterator[str]:
    """Say what stands at each index."""
    for frame in frames:
        for entry in frame.entries():
            text = entry.payload.decode() if entry.kind is EntryKind.COMMAND else entry.kind.name
            yield f"{entry.index}:{text}"


def describe_refusal(refused: Refused) -> str:
    """Say why, and who leads or is to lead."""
    hint = "is to lead" if refused.reason is RefusedReason.TRANSFERRING else "leads"
    leader = f", node {refused.leader_id} {hint}" if refused.leader_id else ""
    return f"{refused.reason.value}{leader}"


def describe_node(node: SimulatedNode) -> str:
    """Say what a node is: role, term, log and indexes."""
    if node.down:
        return f"down; its disk ends at {node.disk.last_index}"
    core = node.core
    runs: list[str] = []
    index = core.first_index
    while index <= core.last_id.index:
        term = core.term_at(index)
        last = index
        while core.term_at(LogIndex(last + 1)) == term:
            last = LogIndex(last + 1)
        runs.append(f"{index}..{last} of term {term}")
        index = LogIndex(last + 1)
    leader = "" if core.leader_id in {None, node.node_id} else f" of {core.leader_id}"
    base = "" if core.snapshot is None else f", snapshot at {core.snapshot.index}"
    return (
        f"{core.role.value}{leader} in term {core.term}; log {', '.join(runs) or 'empty'}{base};"
        f" commit {core.commit_index}, applied {core.applied_index}"
    )
