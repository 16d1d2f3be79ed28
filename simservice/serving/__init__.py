"""The surfaces of the service: gRPC facade, one local process, Ray Serve."""
