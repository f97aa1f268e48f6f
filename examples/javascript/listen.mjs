#!/usr/bin/env node
// Prints the results of edged's boards as JSON lines, as `edged listen` does.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import mqtt from 'mqtt'
import { EdgedError, Hub, readHubKey, readRecords, Receiver } from './index.js'

const HELP = `Usage: listen.mjs --hub-key FILE --board FILE [OPTIONS]

Open sealed results and print them, one JSON object a line.

  --hub-key FILE      the hub's private key, made with edged keygen hub --no-passphrase
  -b, --board PATH    enrolment record of a board to believe, or a directory of them (*.enrol); repeat
  -L, --url URL       the broker: mqtt://host:port or mqtts://host:port  [mqtt://localhost:1883]
      --cafile FILE   certificates that sign the broker's
      --cert FILE     this client's certificate
      --key FILE      this client's TLS key
  -u, --username NAME
  -P, --pw FILE       file with the password
      --prefix TEXT   the boards' results.prefix  [edged]
  -C, --count N       leave after so many results
  -W, --timeout N     leave after so many seconds, with exit code 27
  -d, --debug         also say who announces what
      --help          show this text
`
const TIMED_OUT = 27
const [USAGE, NO_BROKER, BAD_KEY] = [64, 69, 66]

const text = { type: 'string' }
const options = {
  'hub-key': text,
  board: { type: 'string', short: 'b', multiple: true },
  url: { type: 'string', short: 'L', default: 'mqtt://localhost:1883' },
  cafile: text,
  cert: text,
  key: text,
  username: { type: 'string', short: 'u' },
  pw: { type: 'string', short: 'P' },
  prefix: { type: 'string', default: 'edged' },
  count: { type: 'string', short: 'C', default: 'Infinity' },
  timeout: { type: 'string', short: 'W' },
  debug: { type: 'boolean', short: 'd', default: false },
  help: { type: 'boolean' },
}

function main() {
  const asked = readOptions()
  if (asked.help) return process.stdout.write(HELP)
  const receiver = new Receiver(readHubKey(asked['hub-key']), readRecords(asked.board))
  listen(receiver, connect(asked), asked)
}

function readOptions() {
  try {
    const { values } = parseArgs({ options })
    if (!values.help && !(values['hub-key'] && values.board)) throw new Error('--hub-key and --board are needed')
    return values
  } catch (error) {
    return leave(USAGE, error.message)
  }
}

function connect({ url, cafile, cert, key, username, pw }) {
  const read = (path) => path && readFileSync(path)
  const password = pw && readFileSync(pw, 'utf8').trimEnd()
  const client = mqtt.connect(url, { ca: read(cafile), cert: read(cert), key: read(key), username, password })
  const giveUp = (error) => leave(NO_BROKER, `${url}: ${error.message || error.code}`)
  client.on('error', giveUp)
  // No retry helps a wrong name; what stood once is dialled again.
  client.once('connect', () => client.off('error', giveUp).on('error', (error) => warn(`${url}: ${error.code}`)))
  return client
}

function listen(receiver, client, { prefix, count, timeout, debug }) {
  const hub = new Hub(receiver, { prefix })
  let left = Number(count)
  client.on('connect', () => client.subscribe(hub.topics, { qos: 1 }))
  client.on('message', (topic, payload, { retain }) => {
    const { opened, refused, questions } = hub.take(topic, payload, { retained: retain })
    for (const { result } of opened) if (left-- > 0) process.stdout.write(`${JSON.stringify(result)}\n`)
    for (const { topic, error } of refused) warn(`${topic}: ${error.name}: ${error.message}`)
    for (const question of questions) client.publish(question.topic, question.payload, { qos: 1 })
    const device = topic.split('/').at(-2)
    if (debug && topic.endsWith('/announce') && refused.length === 0) {
      warn(`${device} announces epoch ${receiver.epoch(device)}`)
    }
    if (left <= 0) client.end(false, () => process.exit(0))
  })
  if (timeout) setTimeout(() => process.exit(TIMED_OUT), Number(timeout) * 1000)
}

function warn(message) {
  process.stderr.write(`${message}\n`)
}

function leave(code, message) {
  warn(`error: ${message}`)
  process.exit(code)
}

try {
  main()
} catch (error) {
  if (!(error instanceof EdgedError) && error.code === undefined) throw error // neither ours nor a file's
  leave(BAD_KEY, error.message)
}
