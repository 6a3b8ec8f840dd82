"""The gRPC door: authenticates, converts, calls use cases, streams what they give."""
