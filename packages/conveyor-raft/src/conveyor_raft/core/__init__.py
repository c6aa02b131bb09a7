"""The algorithm, without I/O: time, chance and the disk are arguments (see `raft_core`)."""
