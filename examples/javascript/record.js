// Enrolment records: who somebody is. A hub believes the boards whose records a person gave it.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { decodeDeterministic, hasKeys, isNatural, splitSequence } from './cbor.js'
import { parseSign1, verifySign1 } from './cose.js'
import { FormatError, UnknownSignerError } from './errors.js'
import { AEADS, publicKey } from './keys.js'

const RECORD = { bytes: 4096, levels: 8, items: 64 }
const AAD = ['edged.enrol.1']
const COMMON = ['role', 'id', 'sign', 'created']
const FIELDS = {
  publisher: COMMON,
  operator: [...COMMON, 'ecdh'],
  hub: [...COMMON, 'ecdh'],
  device: [...COMMON, 'ecdh', 'aead'],
}

/** Whether something is the name of a device, channel, model or person. */
export const isName = (value) => typeof value === 'string' && /^[a-z0-9][a-z0-9_-]{0,63}$/.test(value)

/**
 * Take a record: what stands in a file.
 *
 * @returns {{role, id, created, aead, sign, ecdh, fingerprint}} `sign` and `ecdh` are public keys
 */
export function parseRecord(bytes) {
  if (bytes.length > RECORD.bytes) throw new FormatError('a record is too large')
  const [own, endorsement] = splitSequence(bytes, RECORD, 2).map((one) => parseSign1(one, RECORD))
  const fields = decodeDeterministic(own.payload)
  const role = fields instanceof Map ? fields.get('role') : undefined
  if (typeof role !== 'string' || !Object.hasOwn(FIELDS, role) || !hasKeys(fields, FIELDS[role])) {
    throw new FormatError('not the keys of a record')
  }
  const [id, created, aead] = ['id', 'created', 'aead'].map((key) => fields.get(key))
  if (!isName(id) || !isNatural(created)) throw new FormatError("a record's name or date does not fit")
  if (role === 'device' && !AEADS.has(aead)) throw new FormatError('a board names no content algorithm')
  const sign = publicKey(fields.get('sign'))
  const ecdh = fields.has('ecdh') ? publicKey(fields.get('ecdh')) : undefined
  if (ecdh?.thumbprint.equals(sign.thumbprint)) throw new FormatError('one key for both purposes')
  verifySign1(own, sign, AAD)
  if (endorsement && !endorsement.payload.equals(own.payload)) throw new FormatError('another record is endorsed')
  const fingerprint = sign.thumbprint.toString('hex', 0, 16)
  return { role, id, created, aead, sign, ecdh, fingerprint, endorsement }
}

/** Check that `record` may take the place of `known`: by the same keys, or endorsed by the known signing key. */
export function checkReplaces(record, known) {
  const same = ['sign', 'ecdh'].every((use) => thumbprint(record[use]) === thumbprint(known[use]))
  if (same) return
  if (!record.endorsement) throw new UnknownSignerError(`the keys of ${known.id} changed without the old one's word`)
  verifySign1(record.endorsement, known.sign, AAD)
}

const thumbprint = (key) => key?.thumbprint.toString('hex')

/**
 * Read the records of boards.
 *
 * @param paths files, or directories of *.enrol files
 */
export function readRecords(paths) {
  return paths.flatMap(filesOf).map((path) => {
    try {
      const record = parseRecord(readFileSync(path))
      if (record.role !== 'device') throw new FormatError(`the record of a ${record.role}, not of a board`)
      return record
    } catch (error) {
      error.message = `${path}: ${error.message}`
      throw error
    }
  })
}

function filesOf(path) {
  if (!statSync(path).isDirectory()) return [path]
  const names = readdirSync(path).filter((name) => name.endsWith('.enrol'))
  return names.sort().map((name) => join(path, name))
}
