"""Generated from proto/agentspace/v1 by `make generate`; never edited."""
