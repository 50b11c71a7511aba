// MCP clients of the HTTP+SSE transport, all at once: the address of the server,
// and then their names. Each keeps a note in its session and asks for it. What
// they were answered, and what went wrong, is printed as JSON.
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js'

const [address, ...names] = process.argv.slice(2)
const notes = 5

async function connect(name, errors) {
  for (let attempt = 1; ; attempt++) {
    const client = new Client({ name, version: '1.0.0' })
    client.onerror = (error) => errors.push(String(error))
    try {
      await client.connect(new SSEClientTransport(new URL('/sse', address)))
      return client
    } catch (error) {
      await client.close()
      if (attempt === 3) throw error
      errors.push(String(error))
      await sleep(100)
    }
  }
}

async function run(name, connected) {
  const errors = []
  const client = await connect(name, errors)
  await connected() // with all others
  const answers = []
  for (let i = 1; i <= notes; i++) {
    await client.callTool({ name: 'keep', arguments: { note: `${name} ${i}` } }, undefined, { timeout: 10000 })
    const { content } = await client.callTool({ name: 'recall' }, undefined, { timeout: 10000 })
    answers.push(content[0].text)
  }
  client.onerror = undefined // closing aborts a request whose answer has come over the stream already
  await client.close()
  return { name, answers, errors }
}

let waiting = names.length
let release
const all = new Promise((resolve) => { release = resolve })
function connected() {
  if (--waiting === 0) release()
  return all
}

const results = await Promise.all(names.map((name) => run(name, connected)))
console.log(JSON.stringify(results))
process.exit()
