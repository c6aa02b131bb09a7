"""What only the leader does: one module per duty, each a task that `leadership` runs and cancels."""
