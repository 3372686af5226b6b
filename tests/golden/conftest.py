"""Keeps pytest from importing the script that needs KerasHub."""

collect_ignore = ["make_golden.py"]
