// Runs vectors through examples/javascript: `node vectors.mjs FOLDER` prints as JSON what came of each, and how many
// flipped bits went unseen, of one at each byte of the data of those that open.

import { createPrivateKey } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as cbor from 'edged-results/cbor.js'
import * as cose from 'edged-results/cose.js'
import { commitment, hubKey, ownKey, publicKey } from 'edged-results/keys.js'
import { checkReplaces } from 'edged-results/record.js'
import { EdgedError, MismatchError, parseRecord, Receiver, toJson } from 'edged-results'

const folder = process.argv[2]
const read = (kind) => JSON.parse(readFileSync(join(folder, `${kind}.json`)))
const bytes = (hex) => Buffer.from(hex, 'hex')
const base64url = (hex) => bytes(hex).toString('base64url')
const pairs = read('keys').keys

const jwk = ({ x, y }) => ({ kty: 'EC', crv: 'P-256', x: base64url(x), y: base64url(y) })
const nodeKey = (name) =>
  createPrivateKey({ key: { ...jwk(pairs[name]), d: base64url(pairs[name].d) }, format: 'jwk' })
const signer = (name) => publicKey(new Map([[1, 2], [-1, 1], [-2, bytes(pairs[name].x)], [-3, bytes(pairs[name].y)]]))
/** The module takes an external_aad as the array, which stands encoded in the vectors. */
const aadOf = ({ aad }) => cbor.decode(bytes(aad))

/** What opens a vector of each kind; each returns what is to be compared, and throws what is to be refused. */
const OPEN = {
  cbor({ data, mode, most }) {
    if (mode === 'sequence') cbor.splitSequence(bytes(data), cbor.LIMITS, most)
    else if (mode === 'canonical') cbor.decodeDeterministic(bytes(data))
    else cbor.decode(bytes(data))
  },
  sign1(vector) {
    const payload = cose.verifySign1(cose.parseSign1(bytes(vector.data)), signer(vector.key), aadOf(vector))
    return { payload: payload.toString('hex') }
  },
  encrypt0(vector) {
    const message = cose.parseEncrypt0(bytes(vector.data), { bytes: vector.limit, levels: 4, items: 16 })
    const k = bytes(vector.key.k)
    const key = { alg: vector.key.alg, k, kid: commitment(k).subarray(0, 8) }
    const plaintext = cose.openEncrypt0(message, key, aadOf(vector))
    return { iv: message.iv.toString('hex'), plaintext: plaintext.toString('hex') }
  },
  encrypt(vector) {
    const message = cose.parseEncrypt(cbor.decodeDeterministic(bytes(vector.data)), 4)
    const k = cose.unwrap(message, ownKey(nodeKey(vector.key)))
    if (commitment(k).toString('hex') !== vector.commit) throw new MismatchError('not the key committed to')
    return { plaintext: cose.openEncrypt(message, k, aadOf(vector)).toString('hex') }
  },
  record({ data, replaces }) {
    const record = parseRecord(bytes(data))
    if (replaces) checkReplaces(record, parseRecord(bytes(replaces)))
    const { role, id, fingerprint } = record
    return { role, id, fingerprint }
  },
  announcement: hears,
  result: hears,
}

/** Play what a hub hears; only the last step may be refused. */
function hears({ hub, steps }, { enrolled }) {
  const receiver = new Receiver(hubKey(nodeKey(`${hub} sign`), nodeKey(hub)), [parseRecord(bytes(enrolled))])
  let now = 0
  let opened
  steps.forEach(({ topic, data, now: clock }, number) => {
    const [device, level] = topic.split('/').slice(-2)
    now = clock ?? now
    try {
      if (level === 'announce') receiver.announce(device, bytes(data), now)
      else opened = toJson(receiver.open(topic, bytes(data), now))
    } catch (error) {
      if (number < steps.length - 1) throw new Error(`step ${number} failed`, { cause: error })
      throw error
    }
  })
  return opened ?? {}
}

function outcome(open, vector, file) {
  try {
    return { outcome: 'opens', value: open(vector, file) }
  } catch (error) {
    if (!(error instanceof EdgedError)) throw error
    return { outcome: error.name, value: error.message }
  }
}

function unseenFlips(open, vector, file) {
  const last = vector.steps?.at(-1) ?? vector
  const flipped = bytes(last.data)
  let unseen = 0
  for (let at = 0; at < flipped.length; at++) {
    flipped[at] ^= 1 << (at % 8)
    const step = { ...last, data: flipped.toString('hex') }
    const altered = vector.steps ? { ...vector, steps: [...vector.steps.slice(0, -1), step] } : step
    if (outcome(open, altered, file).outcome === 'opens') unseen += 1
    flipped[at] ^= 1 << (at % 8)
  }
  return unseen
}

const FLIPPED = { sign1: 'good', encrypt0: 'gcm', record: 'device', announcement: 'good', result: 'good' }
const cameOf = {}
for (const [kind, open] of Object.entries(OPEN).filter(([kind]) => existsSync(join(folder, `${kind}.json`)))) {
  const file = read(kind)
  const found = (name) => file.vectors.find((vector) => vector.name === name)
  cameOf[kind] = {
    vectors: Object.fromEntries(file.vectors.map((vector) => [vector.name, outcome(open, vector, file)])),
    unseen: found(FLIPPED[kind]) && unseenFlips(open, found(FLIPPED[kind]), file),
  }
}
process.stdout.write(JSON.stringify(cameOf))
