"""One verb a file, and the interfaces they need (ports)."""
