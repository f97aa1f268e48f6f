"""Sealed TFLite models on IoT boards: verified, decrypted only into RAM, answered over MQTT."""

__version__ = "0.1.0"
