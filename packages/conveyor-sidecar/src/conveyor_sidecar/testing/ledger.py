"""The laws: what was written, stored and committed, held against what must be.

The ledger lives outside of everything that is simulated. It knows from the names alone where each
record must end, is told of every write, dead letter and commit as it happens, and raises `Broken`
at the first one that breaks a law.
"""

from __future__ import annotations

from collections import defaultdict

from conveyor_sidecar.testing.records import End, expected_ends, source_name
from conveyor_sidecar.testing.scenario import Scenario

_SPOTLESS = frozenset({"cut", "repeat", "letter-failure", "router-outage", "source-failure"})
_CONTESTED = frozenset({"reassign", "zombie", "drain", "new-version"})
"""With these a partition has two owners for a while: what both read may be written by both."""


class Broken(Exception):  # noqa: N818 - it says what the law is
    """A law was broken; the text says which, and by what."""


class Ledger:
    """What the outside world holds.

    Laws:
        * a committed position is never ahead of what has ended;
        * at the end every record was written or dead-lettered where it must be, or filtered;
        * one lineage is one record's, whatever happened: an idempotent sink drops none; and with
          stable offsets one record has one lineage: it doubles none;
        * a record is written twice only if it was not committed when something failed, and never
          by a sink whose only instance lives on and answers while links and sources fail.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.written: defaultdict[End, int] = defaultdict(int)
        self.dead: defaultdict[End, int] = defaultdict(int)
        self.committed: dict[str, int] = dict.fromkeys(self.partitions, 0)
        self.finished: dict[str, bool] = dict.fromkeys(self.partitions, False)
        self.read: dict[str, int] = dict.fromkeys(self.partitions, 0)
        self._lineages: dict[tuple[str, bytes], str] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._windows: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    @property
    def partitions(self) -> list[str]:
        """Names of the source partitions."""
        return [f"p{number}" for number in range(self.scenario.partitions)]

    def fault(self) -> None:
        """Something fails: what is read and not committed may be written twice from now on."""
        for partition in self.partitions:
            window = (self.committed[partition], self.read[partition])
            windows = self._windows[partition]
            if window[0] < window[1] and (not windows or windows[-1] != window):
                windows.append(window)

    def emitted(self, partition: str, end: int) -> None:
        """A source sent records up to `end`."""
        self.read[partition] = max(self.read[partition], end)

    def wrote(self, stage: str, name: str, lineage: bytes) -> None:
        """A sink wrote a record."""
        self.written[stage, name] += 1
        if self.written[stage, name] > 1:
            self._check_repeat(stage, name)
        known = self._lineages.setdefault((stage, lineage), name)
        if known != name:
            raise Broken(f"{stage}: lineage {lineage.hex()} is that of {known} and of {name}")
        if not self.scenario.stable_offsets:
            return
        same = self._names.setdefault((stage, name), lineage)
        if same != lineage:
            raise Broken(f"{stage}: {name} came under two lineages: an idempotent sink has two")

    def buried(self, stage: str, name: str) -> None:
        """A dead letter was stored."""
        self.dead[stage, name] += 1

    def commit(self, partition: str, end: int, finished: bool) -> None:
        """A position was recorded: everything before it must have ended."""
        for index in range(self.committed[partition], end):
            self._check_ended(partition, index, "a position is committed ahead of the sinks")
        self.committed[partition] = max(self.committed[partition], end)
        if finished:
            if self.committed[partition] < self.scenario.records:
                raise Broken(f"{partition} is committed as finished at {end}")
            self.finished[partition] = True

    @property
    def complete(self) -> bool:
        """Every partition is committed to its end."""
        return all(self.finished.values())

    def check_end(self) -> None:
        """Nothing may be lost at the end, and nothing invented."""
        places: set[End] = set()
        for partition in self.partitions:
            for index in range(self.scenario.records):
                self._check_ended(partition, index, "a record is lost")
                self._ways(partition, index, places)
        for stage, name in [*self.written, *self.dead]:
            if (stage, name) not in places:
                raise Broken(f"{stage} has {name}, which it should never have got")

    @property
    def duplicates(self) -> int:
        """Writes beyond the first of a record at a sink."""
        return sum([times - 1 for times in self.written.values()])

    def _ways(self, partition: str, index: int, places: set[End]) -> list[list[End]]:
        name = source_name(partition, index)
        return expected_ends(self.scenario.stages, "reader", name, places)

    def _check_ended(self, partition: str, index: int, law: str) -> None:
        for way in self._ways(partition, index, set()):
            if self.written.get(way[-1]) or any(self.dead.get(place) for place in way):
                continue
            stage, name = way[-1]
            raise Broken(f"{law}: {name} has not ended at {stage}")

    def _check_repeat(self, stage: str, name: str) -> None:
        if self.scenario.faults <= _SPOTLESS and self.scenario.parallelism[stage] == 1:
            raise Broken(f"{stage} wrote {name} twice; its only instance never failed")
        if self.scenario.faults & _CONTESTED:
            return
        partition, _, index = name.split(">", maxsplit=1)[0].rstrip("!").partition("/")
        place = int(index)
        if not any(low <= place < high for low, high in self._windows[partition]):
            raise Broken(f"{stage} wrote {name} twice; no fault happened while it was open")
