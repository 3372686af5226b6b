"""Checks the countable rules of the project's prose; CONTRIBUTING.md lists them."""
