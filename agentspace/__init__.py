"""What other programs import: the generated contract (v1), the Python SDK (client) and the command line (cli)."""
