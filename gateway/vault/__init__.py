"""Sealing of provider keys and the sources of the master key."""
