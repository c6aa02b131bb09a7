"""A transform that filters every tenth record and labels the others."""

from conveyor_sdk import run, transform


@transform
def label(batch: list[dict]) -> list[dict | None]:
    return [None if each["offset"] % 10 == 9 else {**each, "label": "seen"} for each in batch]


run()
