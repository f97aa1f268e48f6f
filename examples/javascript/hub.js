// What a hub does with each MQTT message, whatever the client: `listen.mjs` and the node for Node-RED stand on it.

import { EdgedError, ExpiredError, FormatError, UnknownKeyError } from './errors.js'
import { toJson } from './result.js'

const MOST_HELD = 1000
const MOST_HELD_BYTES = 16 * 2 ** 20
const ASK_EVERY = 10 // seconds between two questions to one board
const NO_RESULTS = new Set(['status', 'nonce', 'health', 'inventory'])

/** Sorts what arrives: opened results, refusals, and questions to boards whose announcement has lapsed. */
export class Hub {
  #receiver
  #prefix
  #held = []
  #heldBytes = 0
  #asked = new Map()

  /** @param prefix the boards' `results.prefix` */
  constructor(receiver, { prefix = 'edged' } = {}) {
    this.#receiver = receiver
    this.#prefix = prefix
  }

  /** What to subscribe to. Announce topics are named one by one: some brokers retain nothing for a wildcard. */
  get topics() {
    return this.#receiver.devices.flatMap((device) => [
      `${this.#prefix}/${device}/announce`,
      `${this.#prefix}/${device}/+`,
    ])
  }

  /**
   * Take a message. Nothing that a message can hold throws.
   *
   * @param {string} topic that it arrived on
   * @param {Buffer} payload
   * @param options `retained`: whether the broker kept it; `now`: Unix seconds
   * @returns `opened`: [{topic, result}], `refused`: [{topic, error}], `questions`: [{topic, payload}] to be published
   */
  take(topic, payload, { retained = false, now = Date.now() / 1000 } = {}) {
    const out = { opened: [], refused: [], questions: [] }
    const [device, level] = topic.split('/').slice(-2)
    if (level === 'announce') this.#announce(out, topic, device, payload, now)
    else if (!NO_RESULTS.has(level)) this.#open(out, topic, payload, now, retained)
    return out
  }

  #announce(out, topic, device, payload, now) {
    if (!this.#try(out, topic, now, () => this.#receiver.announce(device, payload, now))) return
    const held = this.#held
    this.#held = []
    this.#heldBytes = 0
    for (const one of held) this.#open(out, one.topic, one.payload, now)
  }

  #open(out, topic, payload, now, retained = false) {
    this.#try(out, topic, now, () => {
      if (retained) throw new FormatError('a retained message is no result: boards retain none')
      try {
        out.opened.push({ topic, result: toJson(this.#receiver.open(topic, payload, now)) })
      } catch (error) {
        if (!(error instanceof UnknownKeyError)) throw error
        this.#hold(out, topic, payload, error) // the announcement of its epoch may be on its way
      }
    })
  }

  /** Keep a message until the next announcement. What is beyond the bound is refused, the oldest first. */
  #hold(out, topic, payload, error) {
    this.#held.push({ topic, payload, error })
    this.#heldBytes += payload.length
    while (this.#held.length > MOST_HELD || this.#heldBytes > MOST_HELD_BYTES) {
      const oldest = this.#held.shift()
      this.#heldBytes -= oldest.payload.length
      out.refused.push({ topic: oldest.topic, error: oldest.error })
    }
  }

  #try(out, topic, now, action) {
    try {
      action()
      return true
    } catch (error) {
      if (!(error instanceof EdgedError)) throw error
      out.refused.push({ topic, error })
      if (error instanceof ExpiredError) this.#ask(out, topic.split('/').at(-2), now)
      return false
    }
  }

  #ask(out, device, now) {
    if (now < (this.#asked.get(device) ?? -Infinity) + ASK_EVERY) return
    this.#asked.set(device, now)
    out.questions.push({ topic: `${this.#prefix}/${device}/nonce`, payload: this.#receiver.question(device) })
  }
}
