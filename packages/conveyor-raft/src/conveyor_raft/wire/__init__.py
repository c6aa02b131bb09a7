"""Generated protobuf modules of the raft protocol; regenerate with `nox -s proto`."""
