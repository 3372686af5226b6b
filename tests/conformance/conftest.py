"""What the conformance tests share needs torch and transformers: without them there is nothing to collect in it."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["transformers_checks.py", "transformers_report.py"]
