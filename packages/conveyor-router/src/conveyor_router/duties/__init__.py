"""What only the leader does: one module per duty, a task that `leadership` runs and cancels."""
