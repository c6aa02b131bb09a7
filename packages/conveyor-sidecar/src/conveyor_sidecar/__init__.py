"""The Conveyor data plane: discovers services beside it and moves their records."""
