// Announcements: a board tells hubs its channel key, signed, and sealed to each of them.

import { decodeDeterministic, hasKeys, isBytes, isNatural, splitSequence } from './cbor.js'
import { openEncrypt, parseEncrypt, parseSign1, unwrap, verifySign1 } from './cose.js'
import { FormatError, MismatchError } from './errors.js'
import { AEADS, commitment, contentKey } from './keys.js'
import { isName } from './record.js'

const ANNOUNCEMENT = { bytes: 32_768, levels: 12, items: 4_096 }
const MOST_EPOCHS = 32
const MOST_HUBS = 64
/** Seconds that an announcement, or a hub's question, holds at most. */
export const LIFETIME = 48 * 3600

const FIELDS = [
  'device', 'epoch', 'serial', 'issued', 'expires', 'kid', 'commit', 'alg', 'sign_results', 'closed', 'hubs', 'echo',
  'key',
]
const NATURALS = ['epoch', 'serial', 'issued', 'expires']

/**
 * Verify what stands on the announce topic of `device`.
 *
 * @param signer the board's signing key
 * @returns announcements, the newest first; key ids are in hex, in `closed`, `hubs` and `echo`, too
 */
export function parseAnnouncements(bytes, device, signer) {
  const items = splitSequence(bytes, ANNOUNCEMENT, MOST_EPOCHS)
  const all = items.map((item) => {
    const payload = verifySign1(parseSign1(item, ANNOUNCEMENT), signer, ['edged.announce.1', device])
    return parseAnnounced(decodeDeterministic(payload, ANNOUNCEMENT), device)
  })
  if (new Set(all.map(({ kid }) => kid)).size < all.length) throw new FormatError('two epochs have one key id')
  all.reduce((newer, older) => {
    if (older.epoch >= newer.epoch) throw new FormatError('epochs are not announced from the newest to the oldest')
    return older
  })
  return all
}

function parseAnnounced(fields, device) {
  if (!hasKeys(fields, FIELDS)) throw new FormatError('not the keys of an announcement')
  const { kid, commit, alg, ...rest } = Object.fromEntries(fields)
  if (!isName(rest.device) || !NATURALS.every((name) => isNatural(rest[name]))) {
    throw new FormatError('the name or a number of an announcement does not fit')
  }
  if (rest.expires > rest.issued + LIFETIME) throw new FormatError('an announcement lasts more than 48 hours')
  if (!isBytes(kid, 8) || !isBytes(commit, 32) || !AEADS.has(alg) || typeof rest.sign_results !== 'boolean') {
    throw new FormatError('an announcement does not say which key it is of')
  }
  const closed = byHex(rest.closed, 8, isNatural)
  const hubs = hexOf(rest.hubs)
  const echo = byHex(rest.echo, 32, (nonce) => isBytes(nonce, 16))
  if (![...echo.keys()].every((hub) => hubs.includes(hub))) throw new FormatError('echo names another than its hubs')
  const key = parseEncrypt(rest.key, MOST_HUBS)
  if (rest.device !== device) throw new MismatchError(`an announcement of ${device} names ${rest.device}`)
  if (!kid.equals(commit.subarray(0, 8))) throw new MismatchError("an announcement's key id is not of its commitment")
  if (key.alg !== alg) throw new MismatchError('an announcement names another algorithm than its key was sealed with')
  return { ...rest, kid: kid.toString('hex'), commit, alg, closed, hubs, echo, key }
}

/** Return the thumbprints of hubs, which are sorted, each once. */
function hexOf(hubs) {
  const fits = Array.isArray(hubs) && hubs.length >= 1 && hubs.length <= MOST_HUBS && hubs.every((hub) => isBytes(hub, 32))
  if (!fits) throw new FormatError(`hubs are not 1 to ${MOST_HUBS} thumbprints`)
  const hex = hubs.map((hub) => hub.toString('hex'))
  if (hex.some((hub, at) => at > 0 && hub <= hex[at - 1])) throw new FormatError('hubs are not sorted, each once')
  return hex
}

/** Return a map from byte strings of `size` as one from hex. */
function byHex(map, size, fits) {
  if (!(map instanceof Map)) throw new FormatError('closed or echo is not a map')
  for (const [id, value] of map) {
    if (!isBytes(id, size) || !fits(value)) throw new FormatError('an entry of closed or echo does not fit')
  }
  return new Map(Array.from(map, ([id, value]) => [id.toString('hex'), value]))
}

/** Open the channel key of an announcement with the hub's key. */
export function channelKey({ device, epoch, commit, kid, alg, key }, hub) {
  const bytes = openEncrypt(key, unwrap(key, hub), ['edged.channel.1', device, epoch, commit])
  const opened = contentKey(bytes)
  if (opened.kid.toString('hex') !== kid || opened.alg !== alg || !commitment(opened.k).equals(commit)) {
    // An AEAD does not commit to its key: what was signed decides.
    throw new MismatchError(`the channel key of ${device} is not the one that it signed`)
  }
  return opened
}
