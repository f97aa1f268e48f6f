"""The hub: opens what boards seal, and shows it to a home's own broker, its automation, and its people."""
