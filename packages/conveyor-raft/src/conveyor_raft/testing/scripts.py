"""Scenarios as text: commands, and beside each the full transcript of what the cluster did.

    python -m conveyor_raft.testing.scripts [--rewrite] FILE...

What for: a script is a test that reads like documentation, and a change of behaviour shows in
review as a difference in prose. After `--rewrite` the transcripts are what the code does now; the
reviewer judges whether it should (the idea is etcd's `rafttest`).

A script is blocks, parted by empty lines: comments begin with `#`; one command; `----`; transcript.
Nothing happens that no command says: messages lie on the wire until they are delivered or dropped,
writes lie before the disk until `write`, clocks stand still until `campaign` or `heartbeat`.

    cluster 3 [option=number ...]  three fresh nodes, with fields of `CoreOptions`; without
                                   `pre_vote=1` and `check_quorum=1` elections are the paper's
    pass MS [N...]                 let time pass for these nodes (or all); due timers run out
    campaign N                     let the node's patience end: it begins an election
    wake N                         let the node's next timer run out: heartbeats, asking again
    propose N WORD...              propose commands, in one frame
    read N [lease]                 ask when a read may run at N
    transfer N [M]                 let leader N hand its office over, to M
    deliver [A->B] [Kind]          deliver matching messages, oldest first (skip=K, n=K: only some);
                                   also A-> or ->B
    drop ... | copy ...            lose them; deliver copies of them
    forge A->B Kind term=T F=V...  deliver a message that nobody sent (`script_words` says how)
    write N [n=K] | apply N        let (K) writes become durable; let what is committed be applied
    fail N                         let the node's oldest write fail
    settle [N...]                  deliver, write and apply until these nodes (or all) are at rest
    peer N M up|down               tell node N that its connection to node M came up or went down
    spawn N | wipe N               a new node with an empty disk; give node N an empty disk
    change N add=4 promote=4 ...   begin to change the membership (also demote, remove, update,
                                   expected=INDEX/TERM)
    members [N...]                 print who belongs to the cluster, as these nodes know it
    crash N [kept=K] | restart N   lose the process and what is under way to it; K writes are kept
    forget N K                     let a dead node's disk lose its vote and all entries from K on
    snapshot N                     take a snapshot of the node's state
    stream [A->B] | break [A->B]   deliver offered snapshots; lose them
    show [N...]                    print role, term, log and indexes
    expect N fact=value...         fail, even under `--rewrite`, if the node is different

`quietly` before a command leaves only changes of roles and the ends of proposals in the transcript.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from conveyor_raft.testing.script import Script, ScriptError

_RULE = "----"

__all__ = ["Script", "ScriptError", "main", "run_script"]


def run_script(text: str) -> str:
    """Perform all commands of a script; return it with the transcripts as they are now."""
    script = Script()
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        if rest:
            comments += [rest[0], _RULE, *script.run(rest[0])]
        blocks.append("\n".join(comments))
    return "\n\n".join(blocks) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Check or rewrite scripts; return 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m conveyor_raft.testing.scripts")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rewrite", action="store_true", help="make the code's behaviour the rule")
    arguments = parser.parse_args(argv)
    differing = 0
    for file in arguments.files:
        before = file.read_text()
        try:
            after = run_script(before)
        except ScriptError as error:
            differing += 1
            print(f"fails: {file}: {error}")
            continue
        if after == before:
            continue
        if arguments.rewrite:
            file.write_text(after)
            print(f"rewritten: {file}")
        else:
            differing += 1
            print(f"differs: {file}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
