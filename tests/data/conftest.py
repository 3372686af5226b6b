"""Keeps pytest from importing the scripts that need KerasHub and transformers."""

collect_ignore = ["make_answers_golden.py", "make_golden.py", "make_transformers_golden.py"]
