"""Between the objects of the lower packages and the messages of the wire; nothing else knows
both.
"""
