"""Common ground of all wings: errors, clock, files, units, names, log, SQLite, memory, systemd, a small HTTP server.

May import: nothing of edged.
"""
