"""Threads, memory and file limits of the process."""
