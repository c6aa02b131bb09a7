"""The Conveyor control plane: a highly available router node."""
