"""Boards learn together: each from its own data, which stays where it is.

May import: board, model, keystore, broker, config, formats, base.
"""
