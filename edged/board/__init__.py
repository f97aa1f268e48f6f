"""What lives on a board: the daemon, the pipeline, its state, outbox, keys over time, check, audit log, support bundle.

May import: model, keystore, broker, config, formats, base. Never the hub.
"""
