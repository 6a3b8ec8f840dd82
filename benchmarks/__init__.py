"""What a delta, a turn and a socket cost, measured beside a bare copy of the same stream. See docs/performance.md."""
