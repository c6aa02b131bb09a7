"""Fakes, a simulator and an in-memory cluster, for this package's tests and for its users'."""
