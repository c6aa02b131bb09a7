"""The conveyor command: apply, get, describe, status and more."""
