"""Programs as users write them: a process of its own, signals, exit codes, messages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import grpc
import pytest

from conveyor_sdk.wire import (
    info_pb2,
    info_pb2_grpc,
    record_pb2,
    sink_pb2,
    sink_pb2_grpc,
    source_pb2,
    source_pb2_grpc,
)

PROGRAM = """
import os, sys, threading
from conveyor_sdk import run, sink, source

@source
async def numbers(resume):
    import asyncio
    try:
        n = resume or 0
        while True:
            n += 1
            yield n, n
            await asyncio.sleep(0.001)
    finally:
        os.write(1, b"closed\\n")

@sink
def held(value):
    os.write(1, f"holding {{value}}\\n".encode())
    if value == "for ever":
        threading.Event().wait()
    sys.stdin.readline()
    os.write(1, b"released\\n")

run(drain={drain})
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def program(text, **environ):
    """Run a program; kill it if the test leaves it behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **{key: str(value) for key, value in environ.items()}},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def connected(port):
    """Yield a channel once the program answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = info_pb2_grpc.ServiceInfoStub(channel)
        stub.Describe(info_pb2.DescribeRequest(), wait_for_ready=True, timeout=30)
        yield channel


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number):
    """The call in flight is answered, generators are closed, the exit status is 0."""
    port = free_port()
    with program(PROGRAM.format(drain=20), PORT=port) as process, connected(port) as channel:
        read = source_pb2_grpc.SourceStub(channel).Read(
            iter(
                [
                    source_pb2.ReadRequest(open=source_pb2.OpenPartition(partition="0")),
                    source_pb2.ReadRequest(
                        credit=record_pb2.Credit(records_limit=2, bytes_limit=1000)
                    ),
                ]
            ),
            timeout=30,
        )
        assert next(read).HasField("batch")
        request = sink_pb2.SinkRequest(records=[record_pb2.Record(payload=b'"x"')])
        call = sink_pb2_grpc.SinkStub(channel).Write.future(request, timeout=30)
        lines = {process.stdout.readline() for _ in range(2)}
        assert "holding x\n" in lines
        process.send_signal(number)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert not call.result().failures
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "released" in out
        assert "serving source numbers, sink held" in err


def test_a_handler_that_never_returns_does_not_keep_the_process():
    """After the drain time the process leaves without it, with status 1 and a warning."""
    port = free_port()
    with program(PROGRAM.format(drain=0.2), PORT=port) as process, connected(port) as channel:
        request = sink_pb2.SinkRequest(records=[record_pb2.Record(payload=b'"for ever"')])
        call = sink_pb2_grpc.SinkStub(channel).Write.future(request, timeout=30)
        assert process.stdout.readline() == "holding for ever\n"
        process.terminate()
        with pytest.raises(grpc.RpcError):
            call.result()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "1 handlers have not returned" in err


def test_a_second_signal_ends_the_drain():
    """An operator who presses Ctrl-C twice does not wait for the drain time."""
    port = free_port()
    with program(PROGRAM.format(drain=600), PORT=port) as process, connected(port) as channel:
        request = sink_pb2.SinkRequest(records=[record_pb2.Record(payload=b'"for ever"')])
        call = sink_pb2_grpc.SinkStub(channel).Write.future(request, timeout=60)
        assert process.stdout.readline() == "holding for ever\n"
        process.send_signal(signal.SIGINT)
        while "draining" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 1
        with pytest.raises(grpc.RpcError):
            call.result()


def test_the_first_free_port_of_the_range_is_taken():
    """Two programs side by side find places of their own; a full range is an error."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        start = first.getsockname()[1]
        environ = {"PORT": "", "DISCOVERY_START_PORT": start, "DISCOVERY_END_PORT": start}
        with program(PROGRAM.format(drain=1), **environ) as process:
            _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert err.startswith(f"error: port {start} of 127.0.0.1 is taken")
        environ["DISCOVERY_END_PORT"] = start + 20
        deadline = time.monotonic() + 30
        with program(PROGRAM.format(drain=1), **environ) as process:
            line = process.stderr.readline()
            while "serving" not in line and time.monotonic() < deadline:
                line = process.stderr.readline()
            assert start < int(line.rsplit(":", 1)[1]) <= start + 20


def test_a_program_without_services_says_so():
    """One line, status 1, no stack trace."""
    with program("from conveyor_sdk import run; run()", PORT=0) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("error: there is nothing to serve")
    assert "Traceback" not in err
