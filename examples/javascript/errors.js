// One class for each reason to refuse. The names are those that edged itself and its test vectors use.

/** Root of all that this module throws on purpose; `name` is what to count by. */
export class EdgedError extends Error {
  constructor(message, options) {
    super(message, options)
    this.name = new.target.name
  }
}

/** Bytes break the format: not strict CBOR, not the object expected, or beyond a limit. */
export class FormatError extends EdgedError {}

/** A signature does not hold. */
export class SignatureError extends EdgedError {}

/** Signed by a key that is not the one expected here. */
export class UnknownSignerError extends EdgedError {}

/** The signer is known, but may not say this. */
export class NotAllowedError extends EdgedError {}

/** Sealed to other hubs. */
export class NotARecipientError extends EdgedError {}

/** The AEAD tag or the key wrap does not hold. */
export class DecryptionError extends EdgedError {}

/** Two things that must agree do not. */
export class MismatchError extends EdgedError {}

/** An announcement has lapsed by the hub's clock. */
export class ExpiredError extends EdgedError {}

/** An announcement comes from the future. */
export class NotYetValidError extends EdgedError {}

/** Accepted before, or older than what was. */
export class ReplayError extends EdgedError {}

/** A result whose readings were answered before: no attack, but a board that died before it heard of its success. */
export class RepeatedError extends ReplayError {}

/** Sealed under a key id that the board has not announced (yet). */
export class UnknownKeyError extends EdgedError {}

/** A second board speaks with this board's identity. */
export class DuplicateDeviceError extends EdgedError {}

/** A key file cannot be used. */
export class KeystoreError extends EdgedError {}
