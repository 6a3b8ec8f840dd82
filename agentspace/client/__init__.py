"""The Python SDK: typed calls over gRPC, the same over JSON frames, and streams that survive a broken connection."""
