"""What people write in files: the configuration of boards, hubs and aggregators, and their secrets.

May import: formats, base.
"""
