"""The rules of the registry: pure functions over the agreed records."""
