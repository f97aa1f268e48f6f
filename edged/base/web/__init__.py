"""HTTP from within a daemon: small, bounded, and apart from its main loop."""
