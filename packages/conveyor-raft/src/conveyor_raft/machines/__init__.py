"""State machines: the protocol a user implements, and the ones that ship."""
