"""The generated gRPC stubs, for the server and the client."""
