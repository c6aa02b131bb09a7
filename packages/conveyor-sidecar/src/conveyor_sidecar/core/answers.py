"""Whether a service's answer keeps the contract, checked before anything of it is used.

A service may be written by anybody. What it says about records that it was not given, or twice, or
in columns that do not fit, makes the whole answer worthless: using the rest would lose records or
double them. The text says what is wrong and where; it becomes the reason of the dead letter if the
service never answers properly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from conveyor_sidecar.core.events import Failure, Outputs


def failures_problem(count: int, failures: Sequence[Failure]) -> str:
    """Say what is wrong with the failures of a call of `count` records; empty: nothing."""
    seen: set[int] = set()
    for failure in failures:
        if not 0 <= failure.index < count:
            return (
                f"the answer reports a failure of record {failure.index}; "
                f"the call had records 0 to {count - 1}"
            )
        if failure.index in seen:
            return f"the answer reports record {failure.index} as failed twice"
        seen.add(failure.index)
    return ""


def outputs_problem(
    count: int, outputs: Outputs | None, failures: Sequence[Failure], consumers: Collection[str]
) -> str:
    """Say what is wrong with a transform's outputs; empty: nothing.

    Args:
        count: Records of the call.
        outputs: What the transform made of them.
        failures: Checked by `failures_problem`.
        consumers: Stages that routes may name.
    """
    if outputs is None:
        return "a transform's answer must say what became of its records; this one is a sink's"
    made = len(outputs.lengths) // 4
    parents = outputs.parents
    if len(parents) != made:
        return f"the answer has {made} records and {len(parents)} parents; it must be one for each"
    if len(outputs.key_hashes) not in (0, 8 * made):
        return f"the answer has {made} records and {len(outputs.key_hashes) // 8} key hashes"
    if made and max(parents) >= count:
        return (
            f"an output names record {max(parents)} as its parent; "
            f"the call had records 0 to {count - 1}"
        )
    if failures and made:
        both = {failure.index for failure in failures}.intersection(parents)
        if both:
            return f"record {min(both)} both failed and has an output"
    if outputs.routes:
        if len(outputs.routes) != made:
            return f"the answer has {made} records and {len(outputs.routes)} routes"
        unknown = set(outputs.routes).difference(consumers, ("",))
        if unknown:
            return (
                f"an output is routed to {min(unknown)!r}; "
                f"the stage's out-edges lead to {', '.join(sorted(consumers)) or 'nothing'}"
            )
    return ""
