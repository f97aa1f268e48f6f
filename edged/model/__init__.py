"""From verified bytes to scores: the signal chain, the runtime, an author's manifest, drafts and dry runs.

May import: keystore, config, formats, base.
"""
