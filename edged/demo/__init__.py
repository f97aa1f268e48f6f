"""The whole loop on one machine, on a simulated one."""
