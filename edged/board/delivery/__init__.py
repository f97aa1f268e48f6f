"""Delivery: the way of a message from its arrival to its acknowledgement.

``inbox`` accepts messages, ``holds`` counts who still needs each, ``quarantine`` takes out those that kill, ``row_log``
writes rows to disk. ``inference`` asks the models. ``outgoing`` seals results and follows them to the broker; while the
broker is away, ``outbox`` stores them. When the last hold ends, the message is acknowledged. May import: pipeline,
health, state.
"""
