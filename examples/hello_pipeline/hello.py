"""A source, a transform and a sink in one file and one process."""

import asyncio

from conveyor_sdk import run, sink, source, transform


@source(stable_offsets=True)
async def numbers(resume):
    for number in range(resume or 0, 1_000_000):
        yield {"number": number}, number
        await asyncio.sleep(0.1)


@transform
def squared(value):
    return {**value, "square": value["number"] ** 2} if value["number"] % 10 else None


@sink
def printed(value):
    print(value, flush=True)


if __name__ == "__main__":
    run()
