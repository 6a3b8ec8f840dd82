"""The bridge: JSON over WebSocket and a few HTTP routes on one side, the gateway's frames on the other."""
