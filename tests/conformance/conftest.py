"""Skips collection without the packages that the shared code of the conformance tests imports."""

from __future__ import annotations

from importlib.util import find_spec

NEED_TRANSFORMERS = ["head_checks.py", "tokenizer_comparison.py", "transformers_checks.py", "transformers_report.py"]
collect_ignore = [*([] if find_spec("torch") else NEED_TRANSFORMERS), *([] if find_spec("ray") else ["ray_kill.py"])]
