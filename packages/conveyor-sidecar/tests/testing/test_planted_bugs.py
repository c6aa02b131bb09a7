"""The simulator finds bugs: faults planted into a copy of the engine, one at a time.

The shipped code has no switches. Each bug is a text that stands exactly once in one file, and what
it becomes; the copy is put in front of the installed package and the simulator is run on it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import conveyor_sidecar

BUGS = {
    "hop-ack": (
        "core/runner.py",
        "            self.calls.add(Piece(frame, (receipt,)))\n",
        "            self.calls.add(Piece(frame, ()))\n            receipt.release()\n",
    ),
    "highest-seen-dedup": (
        "core/dedup.py",
        "            first = seen.get(offset)\n",
        "            first = seen.get(offset) or seen.get(max(seen, default=-1))\n"
        "            first = None if first and offset > max(seen) else first\n",
    ),
    "without-r4": (
        "core/runner.py",
        "            receipt.wait_for(first)\n",
        "            pass\n",
    ),
    "repeated-frame-accepted": (
        "core/lane.py",
        "            self.repeat = self.repeat or sequence not in self.open\n"
        "            return None\n",
        "            self.unsaid += 1\n            self._ended_above.add(sequence)\n"
        "            self._close_gap()\n            return None\n",
    ),
    "done-before-dead-letter-stored": (
        "core/letters.py",
        "        self._context.emit(letter)\n",
        "        self._context.emit(letter)\n"
        "        piece.release()\n"
        "        piece.holdings = ()\n",
    ),
    "commit-ignoring-term": (
        "testing/router.py",
        "            if commit.term < known.term:\n",
        "            if commit.term < 0:\n",
    ),
    "low-mark-over-gaps": (
        "core/positions.py",
        "        while readings and readings[0].ended:\n",
        "        while readings and (readings[0].ended or reading.ended):\n",
    ),
    "fan-out-ends-with-one-branch": (
        "core/outputs.py",
        "            self._boxes[number].add(piece.fork(part))\n",
        "            held = piece.fork(part) if number == 0 else Piece(part, ())\n"
        "            self._boxes[number].add(held)\n",
    ),
    "reassigned-consumer-forgets": (
        "core/outbox.py",
        '            returned += self._retire(lane, "the consumer was reassigned")\n',
        '            for lost in self._retire(lane, "the consumer was reassigned"):\n'
        "                self._forget(lost)\n",
    ),
    "no-resend-on-resume": (
        "core/outbox.py",
        "            self._context.send_frame(link, piece.frame)\n        self._context.touch",
        "            pass\n        self._context.touch",
    ),
    "superseded-without-term": (
        "core/dedup.py",
        "            if origin.term < known.term:\n",
        "            if origin.term > known.term:\n",
    ),
    "partly-failed-batch-ends": (
        "core/calls.py",
        "                self._put_off(piece, groups[kind], busy=kind is FailureKind.BUSY)\n",
        "                pass\n",
    ),
    "stable-mark-of-what-was-read": (
        "core/reader.py",
        "            self.exits.raise_stable(partition.origin, partition.low_ordinal)\n",
        "            self.exits.raise_stable(partition.origin, partition.next_ordinal)\n",
    ),
    "cancelled-call-counts-as-done": (
        "core/calls.py",
        '            self.failed(piece, CallFailureKind.DEADLINE, reason, "", 0)\n',
        "            self.worked_off(piece)\n",
    ),
    "ordinals-given-twice": (
        "core/positions.py",
        "            next_ordinal=self.low_ordinal if stable_offsets else self.next_ordinal,\n",
        "            next_ordinal=self.low_ordinal // 2,\n",
    ),
    "credit-without-bound": (
        "core/credit.py",
        "        more_records = min(more_records, budget.free_records)\n"
        "        more_bytes = min(size - waiting_bytes - remaining_bytes, budget.free_bytes)\n",
        "        more_records = 1_000_000\n        more_bytes = 1_000_000\n",
    ),
    "finished-before-the-end": (
        "core/positions.py",
        "        finished = self.read_out and self.empty\n",
        "        finished = self.read_out\n",
    ),
    "garbage-answer-is-used": (
        "core/answers.py",
        "        if not 0 <= failure.index < count:\n",
        "        if False:\n",
    ),
}

FIRST = {
    "commit-ignoring-term": 180,
    "without-r4": 50,
    "no-resend-on-resume": 75,
    "reassigned-consumer-forgets": 20,
    "ordinals-given-twice": 15,
}
"""Seeds to begin with, where the first hit comes late: it saves time and proves nothing less."""


@pytest.mark.slow
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    """Every planted bug breaks a law within a few hundred seeds, and the replay command says so."""
    file, present, planted = BUGS[bug]
    package = tmp_path / "conveyor_sidecar"
    original = Path(conveyor_sidecar.__file__).parent
    package.mkdir()
    for part in ("core", "testing"):
        shutil.copytree(original / part, package / part, ignore=shutil.ignore_patterns("__pyc*"))
    (package / "__init__.py").write_text('"""A copy with a planted bug."""\n')
    text = (package / file).read_text()
    assert text.count(present) == 1, f"the text of {bug} must stand once in {file}"
    (package / file).write_text(text.replace(present, planted))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "conveyor_sidecar.testing.simulator"),
            *("--seeds", "600", "--first", str(FIRST.get(bug, 0))),
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert run.returncode == 1, f"{bug} was not found: {run.stdout[-500:]}{run.stderr[-500:]}"
    assert "testing.simulator --seed" in run.stdout
