"""How nodes reach each other: the port, and its adapters for gRPC and memory."""
