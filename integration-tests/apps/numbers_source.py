"""A bounded source of numbered records in two partitions, at a steady pace."""

import asyncio
import os
from collections.abc import AsyncGenerator

from conveyor_sdk import run, source

COUNT = int(os.environ.get("NUMBERS_COUNT", "1000"))
PER_SECOND = int(os.environ.get("NUMBERS_PER_SECOND", "0"))
STEP = 20


@source(partitions=["a", "b"], bounded=True, stable_offsets=True)
async def numbers(
    partition: str, resume: int | None
) -> AsyncGenerator[tuple[dict[str, object], int], None]:
    for offset in range(resume or 0, COUNT):
        yield {"partition": partition, "offset": offset}, offset
        if PER_SECOND and offset % STEP == 0:
            await asyncio.sleep(2 * STEP / PER_SECOND)


run()
