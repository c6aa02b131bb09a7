"""Write Conveyor sources, transforms and sinks in ten lines of Python."""
