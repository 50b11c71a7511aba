// With "Content-Encoding: none", people keep Next.js from compressing.
require('node:http').createServer((request, response) => {
  const last = request.url === '/finite' ? 5 : Infinity
  response.writeHead(200, {'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache, no-transform', 'Content-Encoding': 'none'})
  let n = 0
  const send = () => {
    if (n++ === last) {
      response.end()
      return clearInterval(timer)
    }
    response.write(`id: ${n}\ndata: {"n":${n}}\n\n`)
  }
  const timer = setInterval(send, 100)
  response.on('close', () => clearInterval(timer))
}).listen(process.env.PORT, '127.0.0.1')
