"""The daemon: its process, its parts, its reports, and the recovery of its state.

May import: everything on a board but ``check`` and ``support_bundle``.
"""
