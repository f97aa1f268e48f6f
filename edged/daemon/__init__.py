"""The daemon: it owns the socket, the signals and the time. What a message comes to stands in :mod:`edged.pipeline`."""
