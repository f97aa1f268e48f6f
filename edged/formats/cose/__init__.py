"""COSE (RFC 9052, RFC 9053) cut down to what edged speaks, and strict about it.

Tagged objects only, one curve (P-256), two content algorithms, one way to wrap a key, one signature algorithm. The
two operations that a private key must offer are the protocols :class:`~edged.formats.cose.keys.Signer` and
:class:`~edged.formats.cose.keys.Agreement`; which key store stands behind them is nothing that this package knows.
"""
