"""The model that the demo seals: ``pump.tflite``, its manifest ``pump.toml``, and ``train.py``, which made it."""
