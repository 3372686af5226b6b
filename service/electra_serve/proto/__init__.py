"""The generated gRPC stubs, and the tensor conversions that server and client share."""
