"""Served models and the service that both transports call."""
