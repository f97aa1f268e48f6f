"""Delivery: the path of a message from its arrival to its acknowledgement, and of its results to the broker.

``path`` takes messages to the models that read them and windows to results, top to bottom. ``results`` says where a
result goes now: on its way, into the ``outbox``, or gone; ``announcing`` publishes the keys that hubs open them with.
``hold`` counts who still needs a message. ``lines`` holds back readings whose model has no room, ``model_threads`` asks
slow models, ``row_log`` writes rows to disk and ``replay`` takes them after a crash, ``quarantine`` takes out messages
that kill. May import: pipeline, health, state.
"""
