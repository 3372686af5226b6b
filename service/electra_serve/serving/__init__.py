"""Models by name, and the one service that both transports call."""
