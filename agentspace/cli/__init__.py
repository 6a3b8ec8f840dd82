"""The `agentspace` command: a client of the JSON door; `up` starts the servers."""
