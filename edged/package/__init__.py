"""Sealed models: a signed manifest, one wrapped key to each board, and the encrypted weights, in one file.

What can be done with a package follows from its type: a :class:`~edged.package.verify.Package` can only be verified,
a :class:`~edged.package.verify.VerifiedPackage` can be unwrapped, an :class:`~edged.package.verify.UnwrappedPackage`
can be decrypted.
"""
