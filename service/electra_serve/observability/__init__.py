"""Distributed tracing: one span a request, with what it waited for and what it was computed in."""
