// Strict CBOR. cbor-x takes much that the formats refuse (duplicate keys, indefinite lengths, any tag) and reads 3.0 as
// 3; so all bytes are checked first, and what was a float says so.

import { isUtf8 } from 'node:buffer'
import { Decoder, Encoder, Tag } from 'cbor-x'
import { FormatError } from './errors.js'

/** Of protected headers, COSE_Keys and the payloads of records. */
export const LIMITS = { bytes: 65_536, levels: 16, items: 4_096 }

/** A float. Types are exact, and a JavaScript number does not tell 3.0 from 3. */
export class Float {
  constructor(value) {
    this.value = value
  }
}

const decoder = new Decoder({ mapsAsObjects: false, useRecords: false })
const encoder = new Encoder({ useRecords: false, tagUint8Array: false })

/**
 * Decode one item in any encoding: maps become Map, byte strings Buffer, floats Float, integers from 2^53 on BigInt.
 *
 * @param limits its most `bytes`, `levels` of nesting and data `items`
 * @throws {FormatError}
 */
export function decode(bytes, limits = LIMITS) {
  return decodeChecked(bytes, limits, false)
}

/** Decode one item that carries trust: as `decode`, and in deterministic encoding (RFC 8949, 4.2.1) only. */
export function decodeDeterministic(bytes, limits = LIMITS) {
  return decodeChecked(bytes, limits, true)
}

/** Split a CBOR sequence of 1 to `most` items, each within the limits. */
export function splitSequence(bytes, limits, most) {
  const items = []
  for (let rest = bytes; rest.length > 0; rest = rest.subarray(items.at(-1).length)) {
    if (items.length === most) throw new FormatError(`more than ${most} items`)
    const check = new Check(rest.subarray(0, limits.bytes), limits, false)
    check.item(0)
    items.push(rest.subarray(0, check.at))
  }
  if (items.length === 0) throw new FormatError('there is nothing')
  return items
}

/** Encode an array of text, byte strings (Buffers) and natural numbers below 2^53 deterministically. */
export function encode(array) {
  return Buffer.concat([Buffer.of(0x80 | array.length), ...array.map(encodeOne)])
}

function encodeOne(value) {
  if (!(value > 0xffffffff)) return encoder.encode(value)
  const long = Buffer.alloc(9, 0x1b) // cbor-x would make it a float
  long.writeBigUInt64BE(BigInt(value), 1)
  return long
}

/** Whether a decoded value is an integer from 0 to 2^53 - 1. */
export const isNatural = (value) => Number.isSafeInteger(value) && value >= 0

/** Whether a decoded value is a byte string, of `size` bytes where that is given. A typed array is none. */
export const isBytes = (value, size = value?.length) => Buffer.isBuffer(value) && value.length === size

/** Whether a decoded value is a map with exactly these keys. */
export const hasKeys = (value, keys) =>
  value instanceof Map && value.size === keys.length && keys.every((key) => value.has(key))

/** Return the elements of a tagged array of `length`. */
export function untag(value, tag, length) {
  if (!(value instanceof Tag) || value.tag !== tag || !Array.isArray(value.value) || value.value.length !== length) {
    throw new FormatError(`not an array of ${length} under tag ${tag}`)
  }
  return value.value
}

function decodeChecked(bytes, limits, deterministic) {
  if (bytes.length > limits.bytes) throw new FormatError(`more than ${limits.bytes} bytes`)
  const check = new Check(bytes, limits, deterministic)
  check.item(0)
  if (check.at !== bytes.length) throw new FormatError('something stands behind the data item')
  try {
    return settleNumbers(decoder.decode(check.bytes), check.isFloat.values())
  } catch (error) {
    throw new FormatError(`CBOR: ${error.message}`, { cause: error }) // such as a typed array of half an element
  }
}

/**
 * Put a Float in the place of each number that was one (`isFloat` says so of all but keys, in their order), and a
 * number in the place of each BigInt that fits: cbor-x makes one of whatever has a head of nine bytes.
 */
function settleNumbers(value, isFloat) {
  if (Array.isArray(value)) return value.map((one) => settleNumbers(one, isFloat))
  if (value instanceof Map) return new Map(Array.from(value, ([key, one]) => [key, settleNumbers(one, isFloat)]))
  if (value instanceof Tag) return new Tag(settleNumbers(value.value, isFloat), value.tag)
  if (typeof value !== 'number' && typeof value !== 'bigint') return value
  if (isFloat.next().value) return new Float(value)
  return Number.isSafeInteger(Number(value)) ? Number(value) : value
}

const [UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG] = [0, 1, 2, 3, 4, 5, 6]
const SHORTEST = [24, 2 ** 8, 2 ** 16, 2 ** 32] // the least that needs a head of 1, 2, 4, 8 bytes more
const isAllowedTag = (tag) => [16, 18, 96, 40].includes(tag) || (tag >= 64 && tag <= 87)

/** Walks over encoded items, and builds nothing. */
class Check {
  at = 0
  isFloat = []

  constructor(bytes, { levels, items }, deterministic) {
    Object.assign(this, { levels, items, deterministic })
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) // where it is some other Uint8Array
  }

  /** Check the item at `at`, which stands inside of `level` others, and move behind it. */
  item(level) {
    const { major, info, argument } = this.head()
    if (major === UINT || major === NEGATIVE) this.isFloat.push(false)
    else if (major === BYTES || major === TEXT) this.string(major, argument)
    else if (major > TAG) this.simpleOrFloat(info)
    else if (major === TAG || argument > 0) {
      if (level === this.levels) throw new FormatError(`more than ${this.levels} levels of nesting`)
      if (major === MAP) this.map(argument, level + 1)
      else if (major === ARRAY) for (let n = 0; n < argument; n++) this.item(level + 1)
      else if (isAllowedTag(argument)) this.item(level + 1)
      else throw new FormatError(`tag ${argument}`)
    }
  }

  map(size, level) {
    const seen = new Set()
    let last = Buffer.alloc(0)
    for (let n = 0; n < size; n++) {
      const start = this.at
      const { major, argument } = this.head()
      if (major > TEXT) throw new FormatError('a key is neither an integer nor a string')
      const key = `${major} ${major < BYTES ? argument : this.string(major, argument).toString('latin1')}`
      if (seen.has(key)) throw new FormatError('a key comes twice')
      seen.add(key)
      const encoded = this.bytes.subarray(start, this.at)
      if (this.deterministic && Buffer.compare(last, encoded) > 0) throw new FormatError('keys are not sorted')
      last = encoded
      this.item(level)
    }
  }

  string(major, length) {
    const string = this.take(length)
    if (major === TEXT && !isUtf8(string)) throw new FormatError('text is not UTF-8')
    return string
  }

  simpleOrFloat(info) {
    if (info < 25) {
      if (info < 20 || info > 22) throw new FormatError('a simple value is not false, true or null')
      return
    }
    this.isFloat.push(true)
    if (!this.deterministic || info === 25) return
    const value = info === 26 ? this.bytes.readFloatBE(this.at - 4) : this.bytes.readDoubleBE(this.at - 8)
    if (fitsHalf(value) || (info === 27 && Math.fround(value) === value)) throw new FormatError('a float is too long')
  }

  head() {
    this.items -= 1
    if (this.items < 0) throw new FormatError('too many data items')
    const [first] = this.take(1)
    const [major, info] = [first >> 5, first & 31]
    if (info < 24) return { major, info, argument: info }
    if (info > 27) throw new FormatError('an indefinite length or a reserved head')
    const bytes = this.take(2 ** (info - 24))
    const argument = info === 27 ? bytes.readBigUInt64BE() : bytes.readUIntBE(0, bytes.length)
    const isShortest = argument >= SHORTEST[info - 24]
    if (this.deterministic && major <= TAG && !isShortest) throw new FormatError('a head is too long')
    return { major, info, argument }
  }

  take(length) {
    if (length > this.bytes.length - this.at) throw new FormatError('cut short')
    this.at += Number(length)
    return this.bytes.subarray(this.at - Number(length), this.at)
  }
}

/** Whether a float is the same in half precision: 11 significant bits, none below 2^-24. */
function fitsHalf(value) {
  if (value === 0 || !Number.isFinite(value)) return true
  const lowest = Math.max(Math.floor(Math.log2(Math.abs(value))) - 10, -24)
  return Math.abs(value) <= 65_504 && Number.isInteger(value / 2 ** lowest)
}
