"""A sink that is not idempotent: each delivery is a line at the end of a file, on disk."""

import os
from pathlib import Path

from conveyor_sdk import run, sink

OUTPUT = Path(os.environ["APPEND_OUTPUT"])


@sink
def append(batch: list[dict]) -> None:
    lines = "".join(f"{each['partition']} {each['offset']}\n" for each in batch)
    with OUTPUT.open("a") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


run()
