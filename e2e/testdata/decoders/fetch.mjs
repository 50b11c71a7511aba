// Prints a stream as fetch of Node decodes it.
const [url, lastID] = process.argv.slice(2)
const headers = { accept: 'text/event-stream' }
if (lastID) headers['last-event-id'] = lastID
const answer = await fetch(url, { headers })
for await (const piece of answer.body) process.stdout.write(piece)
