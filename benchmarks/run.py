"""Run benchmarks and print or save their rows.

    nox -s bench -- [NAME ...] [--json FILE]

Each benchmark is a script beside this one that takes `--json FILE` and writes a list of rows
`{bench, case, metric, unit, median, min, max, runs, baseline, ratio}`: a median over the runs, and
its ratio to a peer or a limit measured in the same run. What was skipped is printed with its
reason.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
COLUMNS = ("bench", "case", "metric", "unit", "median", "min", "max", "runs", "baseline", "ratio")


def benchmarks() -> list[str]:
    """Return the names of the benchmarks: the scripts in this folder."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.name != Path(__file__).name)


def shown(value: Any) -> str:
    """Return a cell of the table."""
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    return "" if value is None else str(value)


def main() -> int:
    """Run what was asked for; return the exit code."""
    names = benchmarks()
    parser = argparse.ArgumentParser(description=__doc__, prog="nox -s bench --")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all if none"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in names]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    rows: list[dict[str, Any]] = []
    failed = False
    for name in arguments.names or names:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "rows.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(output)]
            failed |= subprocess.run(command, check=False).returncode != 0
            if output.exists():
                rows.extend(json.loads(output.read_text()))
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(shown(row.get(column)) for column in COLUMNS))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
