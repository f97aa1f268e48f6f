"""The hub: opens what boards seal, and shows it to a home's own broker, its automation, and its people.

May import: keystore, broker, config, formats, base. Never the board, the model or the pipeline.
"""
