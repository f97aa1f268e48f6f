"""The whole loop on one machine, on a simulated one.

May import: hub, board, and all below.
"""
