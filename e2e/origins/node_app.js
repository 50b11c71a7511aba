'use strict'

const crypto = require('node:crypto')
const http = require('node:http')
const zlib = require('node:zlib')

const EPOCH = Number(process.env.EPOCH_MS)
const INTERVAL = 50

// What the test asks for at /stats: the streams, and whom they were opened for.
const stats = { now: 0, max: 0, total: 0, cookies: [], authorizations: [] }

const big = Buffer.alloc(5 << 20, 'the quick brown fox jumps over the lazy dog\n')
const file = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz')

function stream(req, res) {
  if (req.method === 'HEAD') {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' })
    return res.end()
  }
  stats.total++
  stats.max = Math.max(stats.max, ++stats.now)
  stats.cookies.push(req.headers.cookie ?? '')
  stats.authorizations.push(req.headers.authorization ?? '')
  res.writeHead(200, { 'Content-Type': 'text/event-stream' })
  res.flushHeaders()
  const newest = Math.floor((Date.now() - EPOCH) / INTERVAL)
  const last = Number(req.headers['last-event-id'])
  let n = last > 0 && last < newest ? last + 1 : newest + 1
  const timer = setInterval(() => {
    for (; EPOCH + n * INTERVAL <= Date.now(); n++) res.write(`id: ${n}\ndata: {"n":${n}}\n\n`)
  }, 5)
  res.on('close', () => {
    clearInterval(timer)
    stats.now--
  })
}

// A stream that ends, as answers of language models do; asked for with POST,
// so it is nobody else's.
function answer(req, res, body) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream' })
  for (const word of String(body).split(' ')) res.write(`data: ${word}\n\n`)
  res.end('data: [DONE]\n\n')
}

function json(res, value, headers = {}, status = 200) {
  res.writeHead(status, { 'Content-Type': 'application/json', ...headers })
  res.end(JSON.stringify(value))
}

// Without a type, whoever passes the answer on may guess one, from as much as
// has come of it by then.
function text(res, value) {
  res.writeHead(200, { 'Content-Type': 'text/plain' })
  res.end(value)
}

// Everything the origin can see of a request.
function echo(req, res, body) {
  json(res, {
    method: req.method,
    url: req.url,
    headers: req.headers,
    length: body.length,
    sha256: crypto.createHash('sha256').update(body).digest('hex'),
  })
}

function ranged(req, res) {
  const headers = { 'Content-Type': 'text/plain', 'Accept-Ranges': 'bytes' }
  const m = /^bytes=(\d+)-(\d+)$/.exec(req.headers.range ?? '')
  if (!m) {
    res.writeHead(200, { ...headers, 'Content-Length': file.length })
    return res.end(req.method === 'HEAD' ? undefined : file)
  }
  const [from, to] = [Number(m[1]), Number(m[2])]
  res.writeHead(206, { ...headers, 'Content-Range': `bytes ${from}-${to}/${file.length}` })
  res.end(file.subarray(from, to + 1))
}

function page(req, res) {
  const etag = '"v1"'
  if (req.headers['if-none-match'] === etag) {
    res.writeHead(304, { ETag: etag })
    return res.end()
  }
  res.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', ETag: etag, Vary: 'Accept, Cookie' })
  res.end('<!doctype html><title>app</title><p>hello')
}

function compressed(req, res) {
  if (!/\bgzip\b/.test(req.headers['accept-encoding'] ?? '')) return text(res, 'plain')
  res.writeHead(200, { 'Content-Encoding': 'gzip', 'Content-Type': 'text/plain' })
  res.end(zlib.gzipSync('compressed'))
}

const routes = {
  '/': page,
  '/events': (req, res, body) => (req.method === 'POST' ? answer(req, res, body) : stream(req, res)),
  '/echo': echo,
  '/file': ranged,
  '/compressed': compressed,
  '/big': (req, res) => text(res, big),
  '/stats': (req, res) => json(res, stats),
  '/login': (req, res) => {
    res.writeHead(303, { Location: '/', 'Set-Cookie': ['session=abc; HttpOnly', 'theme=dark; Path=/'] })
    res.end()
  },
  '/nothing': (req, res) => {
    res.writeHead(204)
    res.end()
  },
  '/private': (req, res) => json(res, { error: 'who are you?' }, { 'WWW-Authenticate': 'Basic realm="app"' }, 401),
  '/moved': (req, res) => {
    res.writeHead(302, { Location: '/echo?moved', 'Content-Type': 'text/plain' })
    res.end('moved')
  },
  '/broken': (req, res) => json(res, { error: 'on purpose' }, {}, 500),
  '/trailers': (req, res) => {
    res.writeHead(200, { Trailer: 'X-Sum', 'Content-Type': 'text/plain' })
    res.write('body')
    res.addTrailers({ 'X-Sum': '42' })
    res.end()
  },
}

const server = http.createServer((req, res) => {
  const chunks = []
  req.on('data', chunk => chunks.push(chunk))
  req.on('end', () => {
    const route = routes[new URL(req.url, 'http://app').pathname]
    if (route) return route(req, res, Buffer.concat(chunks))
    json(res, { error: 'not found' }, {}, 404)
  })
})

// A WebSocket that says back what it hears: text frames shorter than 126 bytes
// are all that the test sends.
server.on('upgrade', (req, socket) => {
  const accept = crypto
    .createHash('sha1')
    .update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11')
    .digest('base64')
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  let pending = Buffer.alloc(0)
  socket.on('data', chunk => {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 6 && pending.length >= 6 + (pending[1] & 127)) {
      const length = pending[1] & 127
      const mask = pending.subarray(2, 6)
      const text = pending.subarray(6, 6 + length).map((b, i) => b ^ mask[i % 4])
      if ((pending[0] & 15) === 8) return socket.end(Buffer.from([0x88, 0]))
      socket.write(Buffer.concat([Buffer.from([0x81, length]), text]))
      pending = pending.subarray(6 + length)
    }
  })
  socket.on('error', () => socket.destroy())
})

server.listen(Number(process.env.PORT), '127.0.0.1')
