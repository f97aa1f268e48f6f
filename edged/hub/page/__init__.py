"""A page for people: the hub at this moment, and the last hour."""
