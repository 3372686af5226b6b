"""Page to try the service at `GET /`, and an interactive API reference at `GET /docs`; both from the package."""
