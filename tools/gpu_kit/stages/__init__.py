"""Stages of the kit: each is a module that runs as a process and records what it finds."""
