// A hub's side of a channel: which announcements to believe, and which results to accept, once each. No socket and no
// file: bytes and topics go in, results or a named refusal come out.

import { randomBytes } from 'node:crypto'
import { channelKey, LIFETIME, parseAnnouncements } from './announcement.js'
import { encode } from './cbor.js'
import { openEncrypt0, parseEncrypt0, parseSign1, verifySign1 } from './cose.js'
import {
  DuplicateDeviceError,
  ExpiredError,
  FormatError,
  MismatchError,
  NotAllowedError,
  NotARecipientError,
  NotYetValidError,
  RepeatedError,
  ReplayError,
  UnknownKeyError,
  UnknownSignerError,
} from './errors.js'
import { checkReplaces, isName } from './record.js'
import { parseResult, RESULT } from './result.js'

const SEALED = { bytes: 263_168, levels: 4, items: 16 }
const MOST_COUNT = 2 ** 20
const MOST_AHEAD = 24 * 3600 // seconds that a board's clock may run ahead of the hub's
const REMEMBERED = 4096 // results of a board whose readings are remembered
const MOST_CHANNELS = 64
const MOST_EPOCHS = 32 // with results to the same readings
const RESERVED = new Set(['announce', 'health', 'inventory', 'nonce', 'status'])

/** Opens the results of enrolled boards. What it has accepted it remembers for as long as it lives, in memory alone. */
export class Receiver {
  #hub
  #boards = new Map()

  /**
   * @param hubKey what `readHubKey` returns
   * @param records of the boards to believe, from `readRecords` or `parseRecord`
   */
  constructor(hubKey, records) {
    this.#hub = hubKey
    for (const record of records) this.enrol(record)
  }

  /** Names of the boards that are believed. */
  get devices() {
    return [...this.#boards.keys()]
  }

  /** Believe a board. A record of a name that is known already must continue the one before. */
  enrol(record) {
    const known = this.#boards.get(record.id)
    if (known) checkReplaces(record, known.record)
    if (known) known.record = record
    else this.#boards.set(record.id, new Board(record))
  }

  /** The epoch that a board has announced; undefined before its first announcement that was believed. */
  epoch(device) {
    return this.#board(device).current?.number
  }

  /**
   * Take what stands retained on the announce topic of `device`. If it throws, what was known stays as it was.
   *
   * @param now Unix seconds by the hub's clock
   */
  announce(device, payload, now = Date.now() / 1000) {
    const board = this.#board(device)
    const [newest, ...older] = parseAnnouncements(payload, device, board.record.sign)
    const name = this.#hub.name.toString('hex')
    if (!newest.hubs.includes(name)) throw new NotARecipientError(`${device} does not grant its results to this hub`)
    const current = newEpoch(newest, this.#hub, MOST_COUNT)
    const lapses = board.freshUntil(newest, this.#hub, now)
    board.checkNotOlder(newest)
    // Whoever can publish can put old announcements behind the first. So it alone says how far they hold, in `closed`.
    // A hub that was removed since knows their keys: they hold not at all, unless the board itself signed the results.
    const sealed = this.#hub.thumbprint.toString('hex')
    const granted = ({ hubs, key }) => hubs.includes(name) && key.recipients.has(sealed)
    const trusted = ({ hubs, sign_results: signs }) => signs || hubs.every((hub) => newest.hubs.includes(hub))
    const closed = older
      .filter((one) => granted(one) && trusted(one))
      .map((one) => newEpoch(one, this.#hub, newest.closed.get(one.kid) ?? 0))
    board.believe(current, closed, newest, lapses)
  }

  /**
   * Open and accept a sealed result.
   *
   * @returns {{device, channel, kid, signed, result}} `kid` in hex; `toJson` makes it what `edged listen` prints
   */
  open(topic, payload, now = Date.now() / 1000) {
    const [device, channel] = topic.split('/').slice(-2)
    const board = this.#board(device)
    if (!isName(channel) || RESERVED.has(channel)) throw new FormatError(`a board has no channel ${channel}`)
    if (!board.channels.has(channel) && board.channels.size >= MOST_CHANNELS) {
      throw new FormatError(`${device} has more than ${MOST_CHANNELS} channels`)
    }
    const message = parseEncrypt0(payload, SEALED)
    const kid = message.kid.toString('hex')
    const epoch = board.epochs.get(kid)
    if (!epoch) throw new UnknownKeyError(`${device} has not announced key ${kid}`)
    board.checkNotLapsed(board.lapses, now)
    let plaintext = openEncrypt0(message, epoch.key, ['edged.result.1', device, channel])
    const count = board.newCount(kid, message.iv)
    if (epoch.signs) {
      const aad = ['edged.signed-result.1', device, channel, message.kid, message.iv]
      plaintext = verifySign1(parseSign1(plaintext, RESULT), board.record.sign, aad)
    }
    const result = parseResult(plaintext)
    if (result.count !== count) throw new MismatchError(`sealed as count ${count}, and says ${result.count}`)
    if (count > epoch.last) {
      throw new ReplayError(`epoch ${epoch.number} of ${device} is closed to count ${count}`)
    }
    board.accept(kid, count, channel, epoch, result)
    return { device, channel, kid, signed: epoch.signs, result }
  }

  /** What to publish on the `nonce` topic of a board whose announcement has lapsed: its next one echoes it. */
  question(device) {
    return encode([this.#hub.name, this.#board(device).nonce])
  }

  #board(device) {
    const board = this.#boards.get(device)
    if (!board) throw new UnknownSignerError(`no enrolment record of ${device} is known here`)
    return board
  }
}

/** What a hub needs of an announcement that it believes; `last` is the highest count that it opens. */
function newEpoch(announcement, hub, last) {
  const { epoch, serial, sign_results: signs } = announcement
  return { number: epoch, serial, signs, last, key: channelKey(announcement, hub) }
}

/** What a hub knows of one board. Key ids are in hex. */
class Board {
  current = undefined
  epochs = new Map()
  channels = new Set() // of accepted results
  lapses = -Infinity
  nonce = undefined // what the board was asked to echo, and when
  asked = -Infinity
  #signs = false // whether it ever announced signed results
  #seen = new Map() // by key id: which counts were accepted, 32 to an entry
  #answered = new Map() // by channel, source and input: results of each epoch; the longest ago first

  constructor(record) {
    this.record = record
  }

  /** Return until when an announcement holds: by the hub's clock, or because it echoes what this hub asked lately. */
  freshUntil({ issued, expires, echo }, hub, now) {
    if (now <= expires && issued <= now + MOST_AHEAD) return expires
    const echoed = echo.get(hub.name.toString('hex'))
    if (now <= this.asked + LIFETIME && echoed?.equals(this.nonce)) return this.asked + LIFETIME
    this.checkNotLapsed(expires, now)
    throw new NotYetValidError(`an announcement of ${this.record.id} was issued more than a day ahead`)
  }

  checkNotLapsed(lapses, now) {
    if (now <= lapses) return
    if (now > this.asked + LIFETIME) [this.nonce, this.asked] = [randomBytes(16), now]
    throw new ExpiredError(`the announcement of ${this.record.id} has lapsed: does the board run, is its clock right?`)
  }

  checkNotOlder({ device, epoch, serial, kid, sign_results: signs }) {
    if (this.#signs && !signs) throw new NotAllowedError(`${device} has signed its results, and now would not`)
    if (!this.current || epoch > this.current.number) return
    if (epoch < this.current.number) throw new ReplayError(`${device} has announced a newer epoch than ${epoch}`)
    if (kid !== this.current.key.kid.toString('hex')) {
      throw new DuplicateDeviceError(`two boards announce epoch ${epoch} of ${device}: was a key store copied?`)
    }
    if (serial < this.current.serial) throw new ReplayError(`an older announcement of ${device} came again`)
  }

  believe(current, closed, newest, lapses) {
    this.current = current
    this.epochs = new Map([current, ...closed].map((epoch) => [epoch.key.kid.toString('hex'), epoch]))
    this.lapses = lapses
    this.#signs ||= current.signs
    // Counts are remembered as long as `closed` names their key: an epoch whose announcement was cut off can be back.
    for (const kid of this.#seen.keys()) if (kid !== newest.kid && !newest.closed.has(kid)) this.#seen.delete(kid)
  }

  /** Return the count in an IV, which was not accepted before under this key. */
  newCount(kid, iv) {
    const count = Number(iv.readBigUInt64BE())
    if (count < 1 || count > MOST_COUNT) throw new FormatError(`count ${count} is out of range`)
    if ((this.#seen.get(kid)?.get(count >> 5) >> (count & 31)) & 1) {
      throw new ReplayError(`count ${count} under key ${kid} was accepted before`)
    }
    return count
  }

  /** Accept a count, once. Then refuse a result that only repeats another to the same readings. */
  accept(kid, count, channel, { number }, { redelivered = false, input, source = '' }) {
    this.channels.add(channel)
    const seen = this.#seen.get(kid) ?? new Map()
    this.#seen.set(kid, seen.set(count >> 5, seen.get(count >> 5) | (1 << (count & 31))))
    const what = `${channel} ${source.length} ${source} ${[input].flat().map((one) => (Buffer.isBuffer(one) ? one.toString('hex') : one))}`
    const answers = this.#answered.get(what) ?? new Map()
    this.#answered.delete(what)
    this.#answered.set(what, answers)
    if (this.#answered.size > REMEMBERED) this.#answered.delete(this.#answered.keys().next().value)
    const before = fewestReadings(answers)
    const of = answers.get(number) ?? { fresh: 0, redelivered: 0 }
    of[redelivered ? 'redelivered' : 'fresh'] += 1
    answers.set(number, of)
    if (answers.size > MOST_EPOCHS) answers.delete(Math.min(...answers.keys()))
    if (fewestReadings(answers) === before) throw new RepeatedError(`a result of ${this.record.id} repeats another`)
  }
}

/** The least number of readings that explain results by epoch: a redelivered one may repeat one of each older epoch. */
function fewestReadings(answers) {
  const epochs = [...answers].sort(([one], [other]) => one - other)
  return epochs.reduce((fewest, [, { fresh, redelivered }]) => Math.max(fewest, redelivered) + fresh, 0)
}
