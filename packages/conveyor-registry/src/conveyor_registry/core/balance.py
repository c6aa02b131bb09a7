"""Picking one of several: round robin, and smooth weighted round robin.

Round robin goes on after the one that was picked last, in the order of ids, so services may come
and go between two picks without anybody being skipped for long. The weighted form is nginx's smooth
algorithm: each pick adds everybody's weight to its credit, takes the largest credit and charges it
the sum, which spreads the picks of a heavy one instead of bunching them.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence


def after(ids: Sequence[str], last: str | None) -> str:
    """The id that follows `last` in sorted order, around the end; `ids` is not empty."""
    ordered = sorted(ids)
    if last is None:
        return ordered[0]
    return next((one for one in ordered if one > last), ordered[0])


def heaviest(weights: Mapping[str, int], credit: MutableMapping[str, int]) -> str | None:
    """The next pick by weight; changes `credit`. None: nobody has any weight."""
    total = sum(weights.values())
    if total <= 0:
        return None
    for gone in [one for one in credit if one not in weights]:
        del credit[gone]
    for one in sorted(weights):
        credit[one] = credit.get(one, 0) + weights[one]
    weighty = [one for one in sorted(weights) if weights[one] > 0]
    best = max(weighty, key=lambda one: credit[one])
    credit[best] -= total
    return best
