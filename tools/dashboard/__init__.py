"""The Grafana dashboard: `panel.py` what a panel is, `rows.py` which there are, `grafana.py` how Grafana has it.

`python -m tools.dashboard` writes the file; `--check` fails where it is not up to date.
"""
