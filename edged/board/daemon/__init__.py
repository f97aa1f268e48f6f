"""The daemon: it owns the socket, the signals and the time. What a message comes to: ``pipeline``."""
