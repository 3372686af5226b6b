"""Authentication by API key, TLS, and files that are reloaded when they change."""
