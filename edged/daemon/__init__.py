"""The daemon: it owns the socket, the signals and the time; what it does with a message stands in :mod:`edged.pipeline`."""
