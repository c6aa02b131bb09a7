"""One node as a process: commands as JSON lines on standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from conveyor_raft import KeyValueCommand, KeyValueStateMachine, RaftConfig, RaftError, RaftNode


def say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def obey(node: RaftNode, command: dict[str, object]) -> None:
    match command:
        case {"put": str(key)}:
            try:
                await node.propose(KeyValueCommand.put(key, key.encode()), timeout=20)
                say(put=key, ok=True)
            except RaftError as error:
                say(put=key, ok=False, error=type(error).__name__)
        case {"keys": _}:
            keys = sorted(await node.state())
            say(keys=keys, commit=node.commit_index, applied=node.applied_index)
        case {"status": _}:
            say(leader=node.is_leader, term=node.term, leader_id=node.leader_id)


async def main() -> None:
    node_id, folder, addresses = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
    config = RaftConfig(
        node_id=node_id,
        data_dir=folder / str(node_id),
        listen_address=addresses[node_id - 1],
        election_timeout_min_ms=500,
        election_timeout_max_ms=1000,
        heartbeat_interval_ms=100,
        snapshot_interval_entries=200,
        snapshot_trailing_entries=20,
    )
    async with RaftNode(config, KeyValueStateMachine(), addresses) as node:
        say(ready=node_id)
        async with asyncio.TaskGroup() as group:
            while line := await asyncio.to_thread(sys.stdin.readline):
                group.create_task(obey(node, json.loads(line)))


asyncio.run(main())
