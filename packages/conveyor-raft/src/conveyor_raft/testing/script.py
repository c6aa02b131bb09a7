"""One cluster under the commands of a script; `scripts` says what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable

from conveyor_raft.core.loading import LoadedState, first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import Message
from conveyor_raft.core.output import Output, SnapshotSend
from conveyor_raft.core.types import (
    ClusterId,
    Identity,
    Incarnation,
    Member,
    NodeId,
    Proposed,
    RaftRole,
    Refused,
)
from conveyor_raft.errors import InvalidChange, InvariantViolation
from conveyor_raft.testing.script_members import describe_membership, parse_change
from conveyor_raft.testing.script_words import (
    NoChance,
    describe_entries,
    describe_node,
    describe_refusal,
    forge_message,
    paper_options,
    unmet_expectations,
)
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.wording import describe_message, describe_output, describe_wire

_NEWS = re.compile(r"  (node \d+ is|(token|read|transfer) \d+) ")
_CLUSTER = ClusterId(b"script")


class ScriptError(ValueError):
    """A command makes no sense; the message says which and why."""


class Script:
    """One cluster under the commands of one script."""

    def __init__(self) -> None:
        """Begin without a cluster."""
        self._nodes: dict[int, SimulatedNode] = {}
        self._clocks: dict[int, int] = {}
        self._wire: list[Message] = []
        self._offers: list[tuple[int, SnapshotSend, int]] = []
        self._token = 0
        self._lines: list[str] = []
        self._commands: dict[str, Callable[[list[str], dict[str, str]], None]] = {
            "cluster": self._cluster,
            "pass": self._pass,
            "campaign": self._campaign,
            "wake": self._wake,
            "propose": self._propose,
            "read": self._read,
            "transfer": self._transfer,
            "deliver": self._deliver,
            "copy": self._copy,
            "drop": self._drop,
            "forge": self._forge,
            "write": self._write,
            "fail": self._fail,
            "apply": self._apply,
            "settle": self._settle,
            "peer": self._peer,
            "crash": self._crash,
            "restart": self._restart,
            "forget": self._forget,
            "snapshot": self._snapshot,
            "stream": self._stream,
            "break": self._break,
            "spawn": self._spawn,
            "wipe": self._wipe,
            "change": self._change,
            "members": self._members,
            "show": self._show,
            "expect": self._expect,
        }

    def run(self, command: str) -> list[str]:
        """Perform one command and return its transcript.

        Raises:
            ScriptError: there is no such command, or it cannot be performed now.
        """
        name, *words = command.removeprefix("quietly ").split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if name not in self._commands:
            raise ScriptError(
                f"{command!r}: no such command; there are {', '.join(self._commands)}"
            )
        self._lines = []
        try:
            self._commands[name](plain, named)
        except ScriptError as error:
            raise ScriptError(f"{command!r}: {error}") from None
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ScriptError(f"{command!r}: {error!r}") from error
        if command.startswith("quietly "):
            self._lines = [line for line in self._lines if _NEWS.match(line)]
        return self._lines or ["nothing happens"]

    # ------------------------------------------------------------------ commands

    def _cluster(self, words: list[str], named: dict[str, str]) -> None:
        ids = range(1, int(words[0]) + 1)
        members = tuple(Member(NodeId(node), f"node-{node}:1") for node in ids)
        options = paper_options(named)
        for node in ids:
            identity = Identity(_CLUSTER, NodeId(node), Incarnation(b"%d" % node))
            loaded = first_state(Membership(members))
            self._nodes[node] = SimulatedNode(identity, options, NoChance(), loaded)
            self._clocks[node] = 0
        self._show([], {})

    def _pass(self, words: list[str], _: dict[str, str]) -> None:
        for node_id in [int(word) for word in words[1:]] or list(self._nodes):
            self._clocks[node_id] += int(words[0])
            node = self._nodes[node_id]
            if not node.down:
                node.core.tick(self._clocks[node_id])
                self._take(node)

    def _campaign(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        if node.core.role in {
            RaftRole.PRE_CANDIDATE,
            RaftRole.CANDIDATE,
        }:
            self._clocks[node.node_id] += node.options.election_timeout_min_ms
        self._wake(words, {})

    def _wake(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        deadline = node.core.next_deadline
        if deadline is not None:
            self._clocks[node.node_id] = max(self._clocks[node.node_id], deadline)
        node.core.tick(self._clocks[node.node_id])
        self._take(node)

    def _propose(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        self._token += 1
        payloads = [word.encode() for word in words[1:]]
        answer = node.core.propose(payloads, wall_ms=0, token=self._token)
        if isinstance(answer, Proposed):
            self._say(f"token {self._token} is entries {answer.first_index}..{answer.last_index}")
        else:
            self._say(f"token {self._token} is refused: {describe_refusal(answer)}")
        self._take(node)

    def _read(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        self._token += 1
        refused = node.core.read(token=self._token, lease="lease" in words)
        if refused is not None:
            self._say(f"read {self._token} is refused: {describe_refusal(refused)}")
        self._take(node)

    def _transfer(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        self._token += 1
        to = NodeId(int(words[1])) if words[1:] else None
        answer = node.core.transfer(to, token=self._token)
        if isinstance(answer, Refused):
            self._say(f"transfer {self._token} is refused: {describe_refusal(answer)}")
        else:
            self._say(f"transfer {self._token} is to node {answer}")
        self._take(node)

    def _deliver(self, words: list[str], named: dict[str, str]) -> None:
        for message in self._pick(words, named):
            self._wire.remove(message)
            self._arrive(message)

    def _copy(self, words: list[str], named: dict[str, str]) -> None:
        for message in self._pick(words, named):
            self._arrive(message)

    def _drop(self, words: list[str], named: dict[str, str]) -> None:
        for message in self._pick(words, named):
            self._wire.remove(message)
            self._say(f"lost {describe_message(message)}")

    def _forge(self, words: list[str], named: dict[str, str]) -> None:
        fields = [f"{name}={value}" for name, value in named.items()]
        self._arrive(forge_message(self._nodes, [*words, *fields]))

    def _fail(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        self._say(f"write {node.disk.pending[0][0].write_id} of node {node.node_id} fails")
        node.fail_write()
        self._take(node)

    def _write(self, words: list[str], named: dict[str, str]) -> None:
        node = self._running(words[0])
        left = int(named.get("n", "1000"))
        while node.disk.pending and left:
            self._finish_write(node)
            left -= 1

    def _apply(self, words: list[str], _: dict[str, str]) -> None:
        self._finish_apply(self._running(words[0]))

    def _settle(self, words: list[str], _: dict[str, str]) -> None:
        chosen = [self._running(word) for word in words] or [
            node for node in self._nodes.values() if not node.down
        ]
        ids = {node.node_id for node in chosen}
        busy = True
        while busy:
            busy = False
            for node in chosen:
                while node.disk.pending:
                    self._finish_write(node)
                    busy = True
                while node.installing is not None or node.applying:
                    self._finish_apply(node)
                    busy = True
            for message in list(self._wire):
                if message.sender in ids and message.to in ids:
                    self._wire.remove(message)
                    self._arrive(message)
                    busy = True

    def _peer(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        node.core.on_peer(NodeId(int(words[1])), up={"up": True, "down": False}[words[2]])
        self._take(node)

    def _crash(self, words: list[str], named: dict[str, str]) -> None:
        node = self._running(words[0])
        kept = int(named.get("kept", "0"))
        lost = max(0, len(node.disk.pending) - kept)
        node.crash(kept)
        self._wire = [message for message in self._wire if message.to != node.node_id]
        self._say(f"node {node.node_id} crashes; {lost} of its writes are lost")

    def _restart(self, words: list[str], _: dict[str, str]) -> None:
        node = self._nodes[int(words[0])]
        node.start(self._clocks[node.node_id])
        self._show(words, {})
        self._take(node)

    def _forget(self, words: list[str], _: dict[str, str]) -> None:
        node = self._nodes[int(words[0])]
        if not node.down:
            raise ValueError(f"node {node.node_id} runs; only a disk at rest can be found damaged")
        node.disk.lose_tail(int(words[1]), vote=True)
        self._say(f"the disk of node {node.node_id} ends at {node.disk.last_index} now")

    def _snapshot(self, words: list[str], _: dict[str, str]) -> None:
        node = self._running(words[0])
        captured = node.capture_snapshot()
        node.store_snapshot(captured)
        self._say(f"node {node.node_id} has a snapshot at {captured.meta.index}")
        self._take(node)

    def _stream(self, words: list[str], _: dict[str, str]) -> None:
        for sender, send, state in self._pick_offers(words):
            self._say(f"snapshot {send.meta.index} arrives: {describe_message(send.message)}")
            peer = self._nodes[send.peer]
            peer.receive_snapshot(send.message, state)
            self._take(peer)
            self._end_stream(sender, send, delivered=True)

    def _break(self, words: list[str], _: dict[str, str]) -> None:
        for sender, send, _state in self._pick_offers(words):
            self._say(f"the stream of snapshot {send.meta.index} to node {send.peer} breaks")
            self._end_stream(sender, send, delivered=False)

    def _spawn(self, words: list[str], named: dict[str, str]) -> None:
        options = paper_options(named)
        node_id = NodeId(int(words[0]))
        if node_id in self._nodes:
            raise ValueError(f"there is a node {node_id} already")
        identity = Identity(_CLUSTER, node_id, Incarnation(b"%d" % node_id))
        self._nodes[node_id] = SimulatedNode(identity, options, NoChance(), LoadedState())
        self._clocks[node_id] = 0

    def _wipe(self, words: list[str], _: dict[str, str]) -> None:
        before = self._nodes[int(words[0])]
        identity = before.identity._replace(
            incarnation=Incarnation(before.identity.incarnation + b"'")
        )
        node = SimulatedNode(identity, before.options, NoChance(), LoadedState())
        self._nodes[node.node_id] = node
        self._wire = [message for message in self._wire if message.to != node.node_id]
        self._say(f"node {node.node_id} begins again with an empty disk")

    def _change(self, words: list[str], named: dict[str, str]) -> None:
        node = self._running(words[0])
        self._token += 1
        try:
            change = parse_change(self._nodes, named)
            answer = node.core.change_membership(change, token=self._token)
        except InvalidChange as error:
            self._say(f"token {self._token} is refused: {error}")
            return
        if isinstance(answer, Refused):
            self._say(f"token {self._token} is refused: {describe_refusal(answer)}")
        else:
            self._say(f"token {self._token} is begun")
        self._take(node)

    def _members(self, words: list[str], _: dict[str, str]) -> None:
        for node in [self._nodes[int(word)] for word in words] or self._nodes.values():
            members = describe_membership(node.core.membership)
            self._say(f"node {node.node_id}: {members}")

    def _show(self, words: list[str], _: dict[str, str]) -> None:
        for node in [self._nodes[int(word)] for word in words] or self._nodes.values():
            self._say(f"node {node.node_id}: {describe_node(node)}")

    def _expect(self, words: list[str], named: dict[str, str]) -> None:
        unmet = unmet_expectations(self._nodes[int(words[0])], named)
        if unmet:
            raise ScriptError(f"node {words[0]}: {'; '.join(unmet)}")
        self._say("so it is")

    # ------------------------------------------------------------------ what happens

    def _say(self, line: str) -> None:
        self._lines.append(line)

    def _running(self, word: str) -> SimulatedNode:
        node = self._nodes[int(word)]
        if node.down:
            raise ValueError(f"node {word} is down")
        return node

    def _take(self, node: SimulatedNode) -> None:
        out: Output = node.take()
        for line in describe_output(node.node_id, out):
            self._say(f"  {line}")
        self._wire.extend(out.messages)
        stored = node.disk.snapshot
        for send in out.send_snapshot:
            assert stored is not None
            self._offers.append((node.node_id, send, stored.state))

    def _arrive(self, message: Message) -> None:
        self._say(describe_message(message))
        node = self._nodes[message.to]
        if node.down:
            self._say(f"  node {message.to} is down")
            return
        try:
            node.core.step(message)
        except InvariantViolation as violation:
            node.crash(0)
            self._say(f"  node {node.node_id} stops: {violation}")
            return
        self._take(node)

    def _finish_write(self, node: SimulatedNode) -> None:
        released = node.complete_write()
        self._say(f"write {node.disk.completed} of node {node.node_id} is durable")
        for message in released:
            self._say(f"  sends {describe_wire(message)}")
        self._wire.extend(released)
        self._take(node)

    def _finish_apply(self, node: SimulatedNode) -> None:
        frames = node.apply_next()
        words = " ".join(describe_entries(frames)) or "the snapshot"
        self._say(f"node {node.node_id} has applied {words}")
        self._take(node)

    def _end_stream(self, sender: int, send: SnapshotSend, *, delivered: bool) -> None:
        node = self._nodes[sender]
        node.core.on_snapshot_sent(send.peer, send.session, delivered=delivered)
        self._take(node)

    def _pick(self, words: list[str], named: dict[str, str]) -> list[Message]:
        """Return matching messages on the wire, oldest first."""
        picked = [message for message in self._wire if _matches(message, words)]
        picked = picked[int(named.get("skip", "0")) :]
        return picked[: int(named["n"])] if "n" in named else picked

    def _pick_offers(self, words: list[str]) -> list[tuple[int, SnapshotSend, int]]:
        picked = [offer for offer in self._offers if _matches(offer[1].message, words)]
        self._offers = [offer for offer in self._offers if offer not in picked]
        return picked


def _matches(message: Message, words: list[str]) -> bool:
    sender, to = message.sender, message.to
    names = {f"{sender}->{to}", f"{sender}->", f"->{to}", type(message.body).__name__}
    return names.issuperset(words)
