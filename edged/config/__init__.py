"""What people write: a board's configuration, its units and its secrets."""
