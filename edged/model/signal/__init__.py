"""The signal chain around a model, as pure functions on numpy arrays; each is named as the manifest names it."""
