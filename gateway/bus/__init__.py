"""How watchers hear of a turn."""
