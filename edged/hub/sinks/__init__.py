"""Result sinks: where the hub passes accepted results on to, one file each."""
