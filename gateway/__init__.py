"""The gRPC service that owns sessions, turns, keys and usage."""
