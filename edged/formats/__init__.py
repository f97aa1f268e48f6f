"""The formats that leave this machine, a library for anyone: COSE, packages, channels, records, the words of manifests.

May import: base. No file, no database, no configuration, no socket, no numpy.
"""
