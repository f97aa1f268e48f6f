// What becomes of results whose key is not announced yet: `node holds.mjs FOLDER`, with the vectors' folder, prints for
// each message that the hub takes how many results opened, and what was refused.

import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { hubKey } from 'edged-results/keys.js'
import { Hub, parseRecord, Receiver } from 'edged-results'

const read = (kind) => JSON.parse(readFileSync(join(process.argv[2], `${kind}.json`)))
const base64url = (hex) => Buffer.from(hex, 'hex').toString('base64url')
const { enrolled, vectors } = read('result')
const [announcement, good] = vectors.find(({ name }) => name === 'good').steps
function key(name) {
  const [d, x, y] = ['d', 'x', 'y'].map((part) => base64url(read('keys').keys[name][part]))
  return createPrivateKey({ key: { kty: 'EC', crv: 'P-256', d, x, y }, format: 'jwk' })
}
const hub = new Hub(new Receiver(hubKey(key('hub sign'), key('hub')), [parseRecord(Buffer.from(enrolled, 'hex'))]))

const said = []
function take({ topic, data }, options) {
  const { opened, refused } = hub.take(topic, Buffer.from(data, 'hex'), { now: announcement.now, ...options })
  said.push([opened.length, refused.map(({ error }) => error.name)])
}

const KID = 18 // where it begins, in hex digits
const unknown = { ...good, data: `${good.data.slice(0, KID)}${'07'.repeat(8)}${good.data.slice(KID + 16)}` }
take(good, { retained: true })
take(good)
for (let n = 0; n < 999; n++) take(unknown)
take(announcement)
for (let n = 0; n < 3; n++) take(unknown)
process.stdout.write(JSON.stringify(said))
