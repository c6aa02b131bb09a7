"""The pure delivery engine: events in, effects out.

It holds no socket, no clock, no file and no chance of its own.
"""
