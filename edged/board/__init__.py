"""The board: daemon, delivery, pipeline, installation, state, keys over time, check, audit log, support bundle.

May import: model, keystore, broker, config, formats, base. Never the hub.
"""
