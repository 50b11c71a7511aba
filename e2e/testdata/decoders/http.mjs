// Prints a stream as http and zlib of Node decode it.
import { get } from 'node:http'
import { createGunzip } from 'node:zlib'

const [url, lastID] = process.argv.slice(2)
const headers = { accept: 'text/event-stream', 'accept-encoding': 'gzip' }
if (lastID) headers['last-event-id'] = lastID
get(url, { headers }, (answer) => {
  if (answer.headers['content-encoding'] !== 'gzip') throw new Error('it is not compressed')
  answer.pipe(createGunzip()).pipe(process.stdout)
})
