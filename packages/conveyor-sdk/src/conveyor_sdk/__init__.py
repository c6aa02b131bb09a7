"""Write Conveyor services in Python: sources, transforms and sinks, in ten lines each."""

from conveyor_sdk.context import Context
from conveyor_sdk.errors import (
    Busy,
    CodecError,
    DefinitionError,
    Outcome,
    Partial,
    Reject,
    Retry,
    SdkError,
    ServeError,
)
from conveyor_sdk.record import Record
from conveyor_sdk.server import Server, run, serve
from conveyor_sdk.sink import Sink, sink
from conveyor_sdk.source import Source, source
from conveyor_sdk.transform import Transform, transform

__all__ = [
    "Busy",
    "CodecError",
    "Context",
    "DefinitionError",
    "Outcome",
    "Partial",
    "Record",
    "Reject",
    "Retry",
    "SdkError",
    "ServeError",
    "Server",
    "Sink",
    "Source",
    "Transform",
    "run",
    "serve",
    "sink",
    "source",
    "transform",
]
