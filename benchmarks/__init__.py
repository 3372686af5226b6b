"""Measurements of the service, and of what a user would pick instead."""
