// Opens the announcements and sealed results of edged's boards. Written after docs/formats.md; README.md shows its use.

export * from './errors.js'
export { Hub } from './hub.js'
export { readHubKey } from './keys.js'
export { Receiver } from './receiver.js'
export { parseRecord, readRecords } from './record.js'
export { toJson } from './result.js'
