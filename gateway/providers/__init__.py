"""Where answers come from: Anthropic-compatible servers and the scripted model; the catalog of models and prices."""
