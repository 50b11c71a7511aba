// An MCP server of the HTTP+SSE transport, beside a public event stream.
import http from 'node:http'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js'
import { z } from 'zod'

// What the test asks for at /stats: the streams that were opened.
const stats = { sessions: 0, streams: 0, now: 0 }
const transports = new Map()

async function session(res) {
  stats.sessions++
  let kept = ''
  const server = new McpServer({ name: 'notes', version: '1.0.0' })
  server.registerTool('keep', { inputSchema: { note: z.string() } }, ({ note }) => {
    kept = note
    return { content: [{ type: 'text', text: 'kept' }] }
  })
  server.registerTool('recall', {}, () => ({ content: [{ type: 'text', text: kept }] }))
  const transport = new SSEServerTransport('/messages', res)
  transports.set(transport.sessionId, transport)
  res.on('close', () => transports.delete(transport.sessionId))
  await server.connect(transport)
}

function stream(res) {
  stats.streams++
  res.writeHead(200, { 'Content-Type': 'text/event-stream' })
  res.flushHeaders()
  let n = 0
  const timer = setInterval(() => res.write(`id: ${++n}\ndata: {"n":${n}}\n\n`), 20)
  res.on('close', () => clearInterval(timer))
}

http.createServer(async (req, res) => {
  const url = new URL(req.url, 'http://localhost')
  switch (`${req.method} ${url.pathname}`) {
    case 'GET /sse':
      return session(res)
    case 'GET /events':
      return stream(res)
    case 'GET /stats':
      return res.end(JSON.stringify({ ...stats, now: transports.size }))
    case 'POST /messages': {
      const transport = transports.get(url.searchParams.get('sessionId'))
      if (transport) return transport.handlePostMessage(req, res)
    }
  }
  res.writeHead(404).end()
}).listen(Number(process.env.PORT), '127.0.0.1')
