// Applications of one client library, which is the argument. Each line of the
// input connects one, {"client", "url", "id"?, "headers"?}, or closes it,
// {"client", "close"}. What an application sees is printed as {"client", "event"},
// and {"client", "ended"} says that its library does not come back by itself.
import { createInterface } from 'node:readline'
import libraries from './libraries.js'

const connect = await libraries[process.argv[2]]()
const open = new Map()

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

createInterface({ input: process.stdin }).on('line', (line) => {
  const { client, close, url, id = '', headers = {} } = JSON.parse(line)
  if (close) {
    open.get(client)?.()
    open.delete(client)
    return
  }
  const see = ({ id, type, data }) => say({ client, event: { id, type, data } })
  const ended = (reason) => say({ client, ended: String(reason) })
  open.set(client, connect({ url, id, headers }, see, ended))
}).on('close', () => process.exit())
