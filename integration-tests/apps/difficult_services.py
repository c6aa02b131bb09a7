"""Good services, and such as raise, never answer, reject, go back, and send what is too large."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from conveyor_sdk import Context, Partial, Reject, run, sink, source, transform

COUNT = 40
OUTPUT = Path(os.environ["OUTPUT_DIRECTORY"])
opened: list[int] = []


@source(bounded=True)
async def numbers(resume: int | None) -> AsyncGenerator[tuple[int, int], None]:
    for number in range(resume or 0, COUNT):
        yield number, number + 1


@source(bounded=True, stable_offsets=True)
async def wavering(resume: int | None) -> AsyncGenerator[tuple[int, int], None]:
    """Goes back in its offsets the first time it is read, and only then."""
    opened.append(resume or 0)
    offsets = [*range(opened[-1], COUNT)]
    if len(opened) == 1:
        offsets.insert(9, 3)
    for offset in offsets:
        yield offset, offset


@source(bounded=True)
async def heavy(resume: int | None) -> AsyncGenerator[tuple[object, int], None]:
    for number in range(resume or 0, COUNT):
        yield "x" * (5 << 20) if number == 7 else number, number + 1


@transform
def keep(value: int) -> int:
    return value


@transform
def touchy(value: int) -> int:
    if value == 7:
        raise Reject("seven is not welcome")
    if value == 8:
        raise ZeroDivisionError("eight")
    return value


@transform
async def silent(value: int) -> int:
    await asyncio.Event().wait()
    return value


def write(ctx: Context, values: list[object]) -> None:
    with (OUTPUT / ctx.pipeline.rpartition("/")[2]).open("a") as file:
        file.writelines(f"{value}\n" for value in values)


@sink
def collect(batch: list[object], ctx: Context) -> None:
    write(ctx, batch)


@sink
def picky(batch: list[int], ctx: Context) -> None:
    write(ctx, [value for value in batch if value % 10])
    refused = {i: Reject("no round numbers") for i, value in enumerate(batch) if value % 10 == 0}
    if refused:
        raise Partial(refused)


run()
