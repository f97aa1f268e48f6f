"""Sealed models: a signed manifest, one wrapped key to each board, and the encrypted weights, in one file.

What can be done with a package follows from its type (``verify``): a ``Package`` can only be verified, a
``VerifiedPackage`` unwrapped, an ``UnwrappedPackage`` decrypted.
"""
