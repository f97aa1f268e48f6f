"""Files that people write: the configuration of boards, hubs and aggregators, and their secrets.

May import: formats, base.
"""
