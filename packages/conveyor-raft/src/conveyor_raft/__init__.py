"""A complete Raft consensus library for asyncio: sans-I/O core, durable SQLite log, gRPC transport."""
