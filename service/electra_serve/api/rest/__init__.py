"""REST: JSON over HTTP, with FastAPI."""
