"""The one-month form of the demo: real flights, a leader and a transform killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples" / "flights" / "demo.py"
JANUARY_WITH_DEPARTURE = 26_483
JANUARY = 27_004


def test_one_month_loses_nothing(tmp_path: Path) -> None:
    """Every flight of January that departed is in the table, with the right values."""
    command = [sys.executable, str(DEMO), "--json", "--months", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["written"] == JANUARY_WITH_DEPARTURE
    assert report["records_read"] == JANUARY
    assert report["filtered"] == JANUARY - JANUARY_WITH_DEPARTURE
    assert report["lost"] == report["duplicated"] == 0
    names = [kill["process"] for kill in report["killed"]]
    assert names[0].startswith("router-")
    assert names[1:] == ["enrich-1", "enrich-1-sidecar"]
    assert report["leader_failover_seconds"] < 10


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    """Ctrl-C stops everything and says so."""
    command = [sys.executable, str(DEMO), "--months", "1", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        logs = tmp_path / "logs"
        deadline = time.monotonic() + 60
        while len(list(logs.glob("*.log"))) < 13 and time.monotonic() < deadline:
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    assert processes_that_know(str(tmp_path)) == []


def processes_that_know(text: str) -> list[str]:
    """Return the processes whose command or environment names `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            about = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if text.encode() in about:
                found.append(process.name)
    return found
