"""Where the log lives: the port, and its adapters for SQLite and memory."""
