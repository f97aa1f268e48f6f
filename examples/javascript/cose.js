// The three COSE objects of docs/formats.md: COSE_Sign1, COSE_Encrypt0 and COSE_Encrypt. Headers are exactly those that
// stand there, so protected ones are compared as bytes.

import { createDecipheriv, diffieHellman, hkdfSync, verify } from 'node:crypto'
import { decode, decodeDeterministic, encode, hasKeys, isBytes, LIMITS, untag } from './cbor.js'
import {
  DecryptionError,
  FormatError,
  NotARecipientError,
  SignatureError,
  UnknownKeyError,
  UnknownSignerError,
} from './errors.js'
import { AEADS, publicKey } from './keys.js'

const ES256 = 'a10126' // {1: -7}
const ECDH_ES_A256KW = 'a101381e' // {1: -31}
const CONTENT = { a10103: 3, a1011818: 24 } // {1: 3}, {1: 24}
const KDF_CONTEXT = Buffer.from('842483f6f6f683f6f6f68219010044a101381e', 'hex')
const TAG_SIZE = 16
const is = (header, hex) => isBytes(header) && header.toString('hex') === hex

/** Take a COSE_Sign1; nothing in it is to be believed before `verifySign1`. */
export function parseSign1(bytes, limits = LIMITS) {
  const [header, unprotected, payload, signature] = untag(decodeDeterministic(bytes, limits), 18, 4)
  if (!is(header, ES256)) throw new FormatError('a COSE_Sign1 is not of ES256 alone')
  if (!hasKeys(unprotected, [4]) || !isBytes(unprotected.get(4), 32)) throw new FormatError('a signer has no key id')
  if (!isBytes(payload) || !isBytes(signature)) throw new FormatError('a COSE_Sign1 is not two byte strings')
  return { kid: unprotected.get(4), header, payload, signature }
}

/**
 * Return the payload of a COSE_Sign1 that `signer` signed.
 *
 * @param signer a public key
 * @param aad the external_aad's array
 */
export function verifySign1({ kid, header, payload, signature }, signer, aad) {
  if (!kid.equals(signer.thumbprint)) throw new UnknownSignerError(`signed by ${kid.toString('hex', 0, 16)}`)
  const signed = encode(['Signature1', header, encode(aad), payload])
  const key = { key: signer.key, dsaEncoding: 'ieee-p1363' }
  if (signature.length !== 64 || !verify('sha256', signed, key, signature)) {
    throw new SignatureError('a signature does not hold')
  }
  return payload
}

/** Take a COSE_Encrypt0: any encoding will do, because its tag vouches for what matters. */
export function parseEncrypt0(bytes, limits) {
  const [header, unprotected, ciphertext] = untag(decode(bytes, limits), 16, 3)
  if (!hasKeys(unprotected, [4, 5]) || !isBytes(unprotected.get(4), 8)) throw new FormatError('headers are not 4 and 5')
  return { ...sealed(header, unprotected, ciphertext), kid: unprotected.get(4) }
}

/** Return the plaintext of a COSE_Encrypt0 that was sealed with `key` for the purpose `aad`. */
export function openEncrypt0(message, key, aad) {
  if (!message.kid.equals(key.kid) || message.alg !== key.alg) throw new UnknownKeyError('sealed with another key')
  return open(message, key.k, 'Encrypt0', aad)
}

/**
 * Take a decoded COSE_Encrypt to 1 to `most` recipients.
 *
 * @returns with `recipients`, a map from key ids in hex
 */
export function parseEncrypt(value, most) {
  const [header, unprotected, ciphertext, list] = untag(value, 96, 4)
  if (!hasKeys(unprotected, [5])) throw new FormatError('a COSE_Encrypt has another header than the IV')
  if (!Array.isArray(list) || list.length < 1 || list.length > most) {
    throw new FormatError(`not 1 to ${most} recipients`)
  }
  const recipients = new Map(list.map(parseRecipient))
  if (recipients.size !== list.length) throw new FormatError('a recipient is named twice')
  return { ...sealed(header, unprotected, ciphertext), recipients }
}

/** Return the content key of a COSE_Encrypt, from the entry of `own`, an agreement key. */
export function unwrap({ recipients }, own) {
  const entry = recipients.get(own.thumbprint.toString('hex'))
  if (entry === undefined) throw new NotARecipientError('sealed to other hubs')
  const z = diffieHellman({ privateKey: own.key, publicKey: entry.ephemeral.key })
  const kek = Buffer.from(hkdfSync('sha256', z, '', KDF_CONTEXT, 32))
  const cipher = createDecipheriv('id-aes256-wrap', kek, Buffer.alloc(8, 0xa6))
  try {
    return Buffer.concat([cipher.update(entry.wrapped), cipher.final()])
  } catch (error) {
    throw new DecryptionError('a wrapped key does not open', { cause: error })
  }
}

/** Return the plaintext of a COSE_Encrypt with its content key. */
export const openEncrypt = (message, k, aad) => open(message, k, 'Encrypt', aad)

function parseRecipient(value) {
  const [header, unprotected, wrapped] = Array.isArray(value) ? value : []
  if (value?.length !== 3 || !is(header, ECDH_ES_A256KW)) throw new FormatError('a recipient is not of ECDH-ES+A256KW')
  if (!hasKeys(unprotected, [4, -1]) || !isBytes(unprotected.get(4), 32)) {
    throw new FormatError("a recipient's headers are not its key id and an ephemeral key")
  }
  if (!isBytes(wrapped, 40)) throw new FormatError('a wrapped key is not 40 bytes')
  return [unprotected.get(4).toString('hex'), { ephemeral: publicKey(unprotected.get(-1)), wrapped }]
}

/** What COSE_Encrypt0 and COSE_Encrypt share. */
function sealed(header, unprotected, ciphertext) {
  const alg = isBytes(header) ? CONTENT[header.toString('hex')] : undefined
  if (alg === undefined) throw new FormatError('neither A256GCM nor ChaCha20/Poly1305')
  const iv = unprotected.get(5)
  if (!isBytes(iv, 12)) throw new FormatError('an IV is not 12 bytes')
  if (!isBytes(ciphertext) || ciphertext.length < TAG_SIZE) throw new FormatError('a ciphertext has no tag')
  return { alg, header, iv, ciphertext }
}

function open({ alg, header, iv, ciphertext }, k, context, aad) {
  const cipher = createDecipheriv(AEADS.get(alg), k, iv, { authTagLength: TAG_SIZE })
  cipher.setAAD(encode([context, header, encode(aad)]))
  cipher.setAuthTag(ciphertext.subarray(-TAG_SIZE))
  const plaintext = cipher.update(ciphertext.subarray(0, -TAG_SIZE))
  try {
    return Buffer.concat([plaintext, cipher.final()]) // nothing is handed out before the tag was found to hold
  } catch (error) {
    throw new DecryptionError('a tag does not hold', { cause: error })
  }
}
