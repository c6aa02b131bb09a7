"""A gRPC server without our SDK that lists a Transform: `garbage` answers nonsense, `hollow` has
none behind the name that reflection shows.
"""

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_reflection.v1alpha import reflection

TRANSFORM = "conveyor.service.v1.Transform"


def main(name: str) -> None:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    if name == "garbage":
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff\xff\xff")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(TRANSFORM, {"Process": handler}),)
        )
    reflection.enable_server_reflection([TRANSFORM, f"acme.{name.capitalize()}"], server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    server.stop(0).wait()


main(sys.argv[1])
