"""The Grafana dashboard: `panel.py` defines a panel, `rows.py` lists all, `grafana.py` writes Grafana's JSON.

`python -m tools.dashboard` writes the file; `--check` fails if it is not up to date.
"""
