"""The gRPC transport. Kept free of imports: the client reads `stubs` and `tensor` without the server's packages."""
