"""Facilities of the operating system and the interpreter: threads, memory, file limits."""
