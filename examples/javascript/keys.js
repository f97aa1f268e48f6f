// Keys: P-256 pairs (as COSE_Key, and a hub's own from its PEM file) and channel keys.

import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { decodeDeterministic, hasKeys, isBytes } from './cbor.js'
import { FormatError, KeystoreError, MismatchError } from './errors.js'

const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest()

/** The prime of P-256, 32 bytes: coordinates lie below it. */
const P = Buffer.from('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff', 'hex')

/** COSE's numbers of content algorithms, and node's names. */
export const AEADS = new Map([
  [3, 'aes-256-gcm'],
  [24, 'chacha20-poly1305'],
])

/**
 * Take a public key.
 *
 * @param cose a decoded COSE_Key: kty EC2, crv P-256, x, y and nothing else
 * @returns {{thumbprint: Buffer, key: KeyObject}} the key id (RFC 9679), and what node verifies or agrees with
 * @throws {FormatError} also where the point is not on the curve
 */
export function publicKey(cose) {
  if (!hasKeys(cose, [1, -1, -2, -3]) || cose.get(1) !== 2 || cose.get(-1) !== 1) {
    throw new FormatError('a key is not a COSE_Key on P-256')
  }
  const [x, y] = [cose.get(-2), cose.get(-3)]
  if (!isBytes(x, 32) || !isBytes(y, 32)) throw new FormatError('a point is not two coordinates of 32 bytes')
  if (x.compare(P) >= 0 || y.compare(P) >= 0) throw new FormatError("a coordinate is not below the curve's prime")
  const jwk = { kty: 'EC', crv: 'P-256', x: x.toString('base64url'), y: y.toString('base64url') }
  try {
    return { thumbprint: thumbprint(x, y), key: createPublicKey({ key: jwk, format: 'jwk' }) }
  } catch (error) {
    throw new FormatError('a point is not on P-256', { cause: error })
  }
}

/** SHA-256 over the deterministic map {1: 2, -1: 1, -2: x, -3: y}. */
function thumbprint(x, y) {
  return sha256(Buffer.from('a401022001215820', 'hex'), x, Buffer.from('225820', 'hex'), y)
}

/**
 * Read a hub's key file: PKCS#8 PEM, the signing key, then the agreement key, which is the one that opens results.
 *
 * @returns {{name: Buffer, thumbprint: Buffer, key: KeyObject}} the signing key's thumbprint, by which boards call this
 *   hub, and the agreement key
 * @throws {KeystoreError} among others where the file is encrypted: that is not supported here
 */
export function readHubKey(path) {
  if (statSync(path).mode & 0o077) throw new KeystoreError(`${path} is open to others than its owner: chmod 600`)
  const text = readFileSync(path, 'utf8')
  if (text.includes('BEGIN ENCRYPTED PRIVATE KEY')) {
    throw new KeystoreError(`${path} has a passphrase: make one with edged keygen hub --no-passphrase`)
  }
  const blocks = text.match(/-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----/gs) ?? []
  if (blocks.length !== 2) throw new KeystoreError(`${path} is not a hub's key file: two private keys in PEM`)
  try {
    return hubKey(...blocks.map((block) => createPrivateKey(block)))
  } catch (error) {
    throw new KeystoreError(`${path}: ${error.message}`, { cause: error })
  }
}

/** Take a hub's private keys, of node's. */
export const hubKey = (sign, agreement) => ({ name: ownKey(sign).thumbprint, ...ownKey(agreement) })

/** Take a private key of node's, on P-256. */
export function ownKey(key) {
  const { crv, x, y } = createPublicKey(key).export({ format: 'jwk' })
  if (crv !== 'P-256') throw new KeystoreError('a key is not on P-256')
  return { thumbprint: thumbprint(Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')), key }
}

/** The commitment to a symmetric key; its first 8 bytes are the key id. */
export const commitment = (k) => sha256(Buffer.from('edged.key.1'), k)

/**
 * Take a content key, as it stands encoded in an announcement.
 *
 * @returns {{kid: Buffer, alg: number, k: Buffer}}
 * @throws {MismatchError} its id is another key's
 */
export function contentKey(bytes) {
  const cose = decodeDeterministic(bytes)
  if (!hasKeys(cose, [1, 2, 3, -1]) || cose.get(1) !== 4) throw new FormatError('not a symmetric COSE_Key')
  const [kid, alg, k] = [cose.get(2), cose.get(3), cose.get(-1)]
  if (!isBytes(kid, 8) || !AEADS.has(alg) || !isBytes(k, 32)) throw new FormatError('a content key does not fit')
  if (!kid.equals(commitment(k).subarray(0, 8))) throw new MismatchError("a content key has another's id")
  return { kid, alg, k }
}
