// Applications of one client library, which is the argument; that of a browser takes
// its path for another. Each line of the input connects one, {"client", "url", "id"?,
// "headers"?, "worker"?}, or closes it, {"client", "close"}. What an application sees is
// printed as {"client", "event"}, and {"client", "ended"} says that its library does not
// come back by itself. The first line is {"ready"}.
import { createInterface } from 'node:readline'
import libraries from './libraries.js'

const [library, ...args] = process.argv.slice(2)
const connect = await libraries[library](...args)
const open = new Map()

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

say({ ready: true })
createInterface({ input: process.stdin }).on('line', (line) => {
  const { client, close, url, id = '', headers = {}, worker = false } = JSON.parse(line)
  if (close) {
    open.get(client)?.()
    open.delete(client)
    return
  }
  const see = ({ id, type, data }) => say({ client, event: { id, type, data } })
  const ended = (reason) => say({ client, ended: String(reason) })
  open.set(client, connect({ url, id, headers, worker }, see, ended))
}).on('close', async () => {
  await connect.quit?.()
  process.exit()
})
