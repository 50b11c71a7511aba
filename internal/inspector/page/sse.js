// Decodes an event stream by the rules of the WHATWG HTML standard, section
// "Server-sent events", and beyond what an EventSource tells: comments, blocks
// without data, and lines that mean nothing are reported, too.

const LF = 10

/** What a stream brings that is larger than anybody should keep. */
export class TooLarge extends Error {
	constructor(limit) {
		super(`an event or a line is larger than ${limit} characters`)
		this.name = 'TooLarge'
		this.limit = limit
	}
}

/**
 * A decoder of one connection. Each item that is complete goes to emit:
 *
 *	{kind: 'event', data, type, id, hasID, retry}   dispatched by an EventSource
 *	{kind: 'block', data: '', type, id, hasID, retry}   without data: sets id or retry at most
 *	{kind: 'comment', data}   a line that begins with a colon
 *	{kind: 'ignored', data}   a line that has no meaning
 *
 * id is the id in force after the block; hasID says that the block itself has
 * set it. retry is a number of milliseconds, or undefined.
 */
export class Decoder {
	constructor(emit, { limit = Infinity, id = '' } = {}) {
		this.emit = emit
		this.limit = limit
		this.lastID = id
		// The standard's "UTF-8 decode": strips one BOM, and replaces what is
		// invalid. Streaming, so that a character may be split anywhere.
		this.text = new TextDecoder()
		this.pieces = [] // of a line that has begun
		this.length = 0 // of pieces
		this.skipLF = false // the last character was a CR, which ended a line
		this.reset()
	}

	reset() {
		this.data = []
		this.size = 0
		this.type = ''
		this.id = undefined
		this.retry = undefined
		this.fields = 0
	}

	/** Decodes a chunk of bytes. It may end anywhere. */
	push(bytes) {
		const text = this.text.decode(bytes, { stream: true })
		let from = 0
		if (this.skipLF && text.length > 0) {
			if (text.charCodeAt(0) === LF) from = 1
			this.skipLF = false
		}
		// The next of either, looked for only once it is passed: a search for a
		// CR in a stream that has none would go through the chunk at each line.
		let lf = text.indexOf('\n', from)
		let cr = text.indexOf('\r', from)
		while (lf >= 0 || cr >= 0) {
			const isCR = cr >= 0 && (lf < 0 || cr < lf)
			const end = isCR ? cr : lf
			this.line(this.finish(text.slice(from, end)))
			from = end + 1
			if (isCR) {
				if (from < text.length) {
					if (text.charCodeAt(from) === LF) from++
				} else {
					this.skipLF = true
				}
			}
			if (lf >= 0 && lf < from) lf = text.indexOf('\n', from)
			if (cr >= 0 && cr < from) cr = text.indexOf('\r', from)
		}
		if (from < text.length) {
			this.length += text.length - from
			this.check()
			this.pieces.push(text.slice(from))
		}
	}

	/** Completes a line with its last piece. */
	finish(piece) {
		this.length += piece.length
		this.check()
		if (this.pieces.length > 0) {
			this.pieces.push(piece)
			piece = this.pieces.join('')
			this.pieces = []
		}
		this.length = 0
		return piece
	}

	check() {
		if (this.size + this.length > this.limit) throw new TooLarge(this.limit)
	}

	line(line) {
		if (line === '') {
			this.dispatch()
			return
		}
		const colon = line.indexOf(':')
		if (colon === 0) {
			this.emit({ kind: 'comment', data: line.charCodeAt(1) === 32 ? line.slice(2) : line.slice(1) })
			return
		}
		const name = colon < 0 ? line : line.slice(0, colon)
		let value = ''
		if (colon >= 0) value = line.charCodeAt(colon + 1) === 32 ? line.slice(colon + 2) : line.slice(colon + 1)
		if (!this.field(name, value)) this.emit({ kind: 'ignored', data: line })
	}

	/** Takes a field, or returns false if it has no meaning. */
	field(name, value) {
		switch (name) {
		case 'data':
			this.data.push(value)
			this.size += value.length + 1
			break
		case 'event':
			this.type = value
			break
		case 'id':
			if (value.includes('\0')) return false
			this.id = value
			break
		case 'retry':
			if (!/^[0-9]+$/.test(value)) return false
			this.retry = Number(value)
			break
		default:
			return false
		}
		this.fields++
		return true
	}

	dispatch() {
		if (this.fields === 0) return
		const hasID = this.id !== undefined
		if (hasID) this.lastID = this.id
		this.emit({
			kind: this.data.length > 0 ? 'event' : 'block',
			data: this.data.join('\n'),
			type: this.type,
			id: this.lastID,
			hasID,
			retry: this.retry,
		})
		this.reset()
	}
}
