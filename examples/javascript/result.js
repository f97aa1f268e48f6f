// Results: what a board's model says of its readings.

import { decode, Float, isBytes, isNatural } from './cbor.js'
import { FormatError } from './errors.js'

export const RESULT = { bytes: 262_144, levels: 4, items: 8_192 }
const MOST_COUNT = 2 ** 20

const isFloat = (value) => value instanceof Float
const isText = (value) => typeof value === 'string'
const isPair = (value) => Array.isArray(value) && value.length === 2 && isText(value[0]) && isFloat(value[1])
const isListOf = (fits) => (value) => Array.isArray(value) && value.every(fits)
const isUnsigned = (value) => isNatural(value) || (typeof value === 'bigint' && value >= 0n)

const REQUIRED = {
  model: isText,
  version: isUnsigned,
  digest: (value) => isBytes(value, 32),
  time: isFloat,
  count: (value) => isNatural(value) && value >= 1 && value <= MOST_COUNT,
  late: (value) => typeof value === 'boolean',
  scores: isListOf(isFloat),
  input: (value) => isBytes(value, 32) || areCounts(value),
  pad: (value) => isBytes(value) && value.length >= 24 && value.length <= 255 && value.every((byte) => byte === 0),
}
const OPTIONAL = {
  label: isText,
  score: isFloat,
  value: isFloat,
  top: (value) => isListOf(isPair)(value) && value.length > 0,
  tune: (value) => value instanceof Map && [...value].every(([name, number]) => isText(name) && isFloat(number)),
}
const FIELDS = { ...REQUIRED, ...OPTIONAL }

/** Sealed readings are named by a sensor's key id, and the first and last count. */
function areCounts(value) {
  if (!Array.isArray(value) || value.length !== 3) return false
  const [kid, first, last] = value
  return isBytes(kid, 8) && isUnsigned(first) && isUnsigned(last) && first <= last
}

/**
 * Take an opened result: a map of the fields that docs/formats.md names.
 *
 * @throws {FormatError}
 */
export function parseResult(bytes) {
  const map = decode(bytes, RESULT)
  if (!(map instanceof Map)) throw new FormatError('a result is not a map')
  const missing = Object.keys(REQUIRED).find((name) => !map.has(name))
  if (missing) throw new FormatError(`a result lacks ${missing}`)
  for (const [name, value] of map) {
    if (!isText(name) || !Object.hasOwn(FIELDS, name)) throw new FormatError('a result has an unknown key')
    if (!FIELDS[name](value)) throw new FormatError(`${name} of a result does not fit`)
  }
  const decides = map.has('label') && map.has('score') && !map.has('value')
  const measures = map.has('value') && !map.has('label') && !map.has('score')
  if (!decides && !measures) throw new FormatError('a result has neither a label with its score nor a value')
  if (map.has('top') && (measures || map.get('scores').length > 0)) throw new FormatError('top stands beside scores')
  return Object.fromEntries(map)
}

/** Return what `edged listen` prints of an opened result: byte strings in hex, absent fields left out. */
export function toJson({ device, channel, kid, signed, result }) {
  const { pad, top, input, ...fields } = result
  const json = { device, channel, ...plain(fields), input: plain(input), kid, signed }
  if (top) json.top = top.map(([label, score]) => ({ label, score: score.value }))
  if (Array.isArray(input)) {
    const [sensor, first, last] = json.input
    json.input = { kid: sensor, first, last }
  }
  return json
}

/** Return a decoded value in JSON's types. A count from 2^53 on becomes text: as a number it would be another. */
function plain(value) {
  if (value instanceof Float) return value.value
  if (isBytes(value)) return value.toString('hex')
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return value.map(plain)
  if (value instanceof Map) return plain(Object.fromEntries(value))
  if (typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]))
}
