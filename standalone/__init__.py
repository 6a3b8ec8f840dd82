"""The gateway and the bridge in one process, for where one machine is enough. Imports both; neither knows of it."""
