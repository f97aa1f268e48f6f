// Results: what a board's model says of its readings.

import { decode, Float, isBytes, isNatural } from './cbor.js'
import { FormatError } from './errors.js'

export const RESULT = { bytes: 262_144, levels: 4, items: 8_192 }
const MOST_COUNT = 2 ** 20

const isFloat = (value) => value instanceof Float
const isText = (value) => typeof value === 'string'
const isPair = (value) => Array.isArray(value) && value.length === 2 && isText(value[0]) && isFloat(value[1])
const isUnsigned = (value) => isNatural(value) || (typeof value === 'bigint' && value >= 0n)
const isListOf = (least, most, fits) => (value) =>
  Array.isArray(value) && value.length >= least && value.length <= most && value.every(fits)
const isNamed = (least, most, fits) => (value) =>
  value instanceof Map && value.size >= least && value.size <= most && [...value].every(([name, one]) => isText(name) && fits(one))

const REQUIRED = {
  model: isText,
  version: isUnsigned,
  digest: (value) => isBytes(value, 32),
  time: isFloat,
  count: (value) => isNatural(value) && value >= 1 && value <= MOST_COUNT,
  late: (value) => typeof value === 'boolean',
  input: (value) => isBytes(value, 32) || areCounts(value),
  pad: (value) => isBytes(value) && value.length >= 256 && value.length <= 65_535 && value.every((byte) => byte === 0),
}
const OPTIONAL = {
  redelivered: (value) => value === true,
  source: (value) => isText(value) && value.length > 0 && Buffer.byteLength(value) <= 128,
  label: isText,
  score: isFloat,
  value: isFloat,
  scores: isListOf(1, 4096, isFloat),
  top: isListOf(1, 5, isPair),
  values: isNamed(2, 64, isFloat),
  counts: isNamed(1, 64, isUnsigned),
  boxes: isListOf(0, 32, isBox),
  tune: isNamed(0, Infinity, isFloat),
}
const FIELDS = { ...REQUIRED, ...OPTIONAL }
const ANSWERS = ['label', 'value', 'values', 'counts']
const SIDES = ['label', 'score', 'left', 'top', 'right', 'bottom']

/** A label, a score, and four sides as shares of the picture. */
function isBox(value) {
  if (!Array.isArray(value) || value.length !== SIDES.length || !isText(value[0]) || !value.slice(1).every(isFloat)) {
    return false
  }
  const [left, top, right, bottom] = value.slice(2).map((side) => side.value)
  return 0 <= left && left <= right && right <= 1 && 0 <= top && top <= bottom && bottom <= 1
}

/** Sealed readings are named by a sensor's key id, and the first and last count. */
function areCounts(value) {
  if (!Array.isArray(value) || value.length !== 3) return false
  const [kid, first, last] = value
  return isBytes(kid, 8) && isUnsigned(first) && isUnsigned(last) && first <= last
}

/**
 * Take an opened result: an object of the fields that docs/formats.md names. Others are passed over.
 *
 * @throws {FormatError}
 */
export function parseResult(bytes) {
  const map = decode(bytes, RESULT)
  if (!(map instanceof Map) || ![...map.keys()].every(isText)) throw new FormatError('not a map with text as keys')
  const missing = Object.keys(REQUIRED).find((name) => !map.has(name))
  if (missing) throw new FormatError(`a result lacks ${missing}`)
  const known = [...map].filter(([name]) => Object.hasOwn(FIELDS, name))
  const wrong = known.find(([name, value]) => !FIELDS[name](value))
  if (wrong) throw new FormatError(`${wrong[0]} of a result does not fit`)
  if (!ANSWERS.some((name) => map.has(name))) throw new FormatError('a result has no answer')
  if (map.has('score') && !map.has('label')) throw new FormatError('a score stands without its label')
  if (map.has('top') && (!map.has('score') || map.has('scores'))) throw new FormatError('top stands beside scores')
  if (map.has('boxes') && !map.has('counts')) throw new FormatError('boxes stand without counts')
  return Object.fromEntries(known)
}

/** Return what `edged listen` prints of an opened result: byte strings in hex, absent fields left out. */
export function toJson({ device, channel, kid, signed, result }) {
  const { pad, top, input, boxes, tune, ...fields } = result
  const json = { device, channel, ...plain(fields), input: plain(input), kid, signed }
  if (top) json.top = top.map(([label, score]) => ({ label, score: score.value }))
  if (boxes?.length) json.boxes = boxes.map((box) => Object.fromEntries(SIDES.map((side, at) => [side, plain(box[at])])))
  if (tune?.size) json.tune = plain(tune)
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
