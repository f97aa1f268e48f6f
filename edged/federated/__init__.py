"""Boards learn together: each from its own data, which stays where it is."""
