// One event stream, read with fetch: what an EventSource does, made visible.
// It reconnects as an EventSource does, gives up where one gives up, and says
// why in words.

import { wire } from './request.js'
import { Decoder, TooLarge } from './sse.js'

/** The reconnection time of browsers, until the stream names another. */
const usualRetry = 3000

/** As much of one event as the module itself takes, unless told otherwise. */
const maxEvent = 16 * 1024 * 1024

const snippetSize = 2048

/** A URL beside this page, without the password that the page's own may have. */
export const here = (name) => new URL(name, location.origin + location.pathname).href

// A policy violation is reported as an event, not by the fetch that fails.
let violations = 0
addEventListener('securitypolicyviolation', (e) => {
	if (e.effectiveDirective === 'connect-src') violations++
})

export class Stream {
	/**
	 * add is given each item, changed is called when anything else has changed.
	 */
	constructor({ add, changed }) {
		this.report = add
		this.changed = changed
		this.state = 'idle'
		this.forget()
	}

	forget() {
		this.problem = null
		this.status = ''
		this.url = ''
		this.headers = []
		this.protocol = ''
		this.headTime = undefined
		this.firstByte = undefined
		this.bytes = 0
		this.events = 0
		this.comments = 0
		this.lastID = ''
		this.retry = usualRetry
		this.retryNamed = false
		this.openedAt = 0
		this.waitUntil = 0
		this.connections = 0
	}

	get running() {
		return this.state === 'connecting' || this.state === 'open' || this.state === 'waiting'
	}

	/** request: {url, headers, lastID, credentials, follow} */
	start(request) {
		this.stop()
		this.forget()
		this.request = request
		this.lastID = request.lastID
		this.control = new AbortController()
		this.run(this.control.signal)
	}

	stop() {
		if (!this.running) return
		this.control.abort()
		this.note('stopped')
		this.become('stopped')
	}

	become(state) {
		this.state = state
		this.changed()
	}

	note(text, tone = '') {
		this.add({ kind: 'note', data: text, tone })
	}

	add(item) {
		item.time = performance.timeOrigin + performance.now()
		this.report(item)
	}

	async run(signal) {
		for (;;) {
			this.become('connecting')
			const end = await this.connect(signal)
			if (signal.aborted) return
			if (end.problem) {
				this.problem = end.problem
				this.note(end.problem.title, 'bad')
			} else {
				this.note(end.note)
			}
			if (end.final || !this.request.follow) {
				this.become(end.problem ? 'failed' : 'ended')
				return
			}
			this.waitUntil = performance.now() + this.retry
			this.become('waiting')
			await sleep(this.retry, signal)
			if (signal.aborted) return
			this.problem = null
		}
	}

	/** Makes one connection and reads it to its end, which it returns. */
	async connect(signal) {
		const { url, credentials } = this.request
		const headers = new Headers({ Accept: 'text/event-stream' })
		for (const [name, value] of this.request.headers) headers.set(name, wire(value))
		if (this.lastID !== '') headers.set('Last-Event-ID', wire(this.lastID))

		this.connections++
		this.status = ''
		this.headers = []
		this.protocol = ''
		this.headTime = this.firstByte = undefined
		const asked = this.lastID === '' ? '' : `, with the last event id ${this.lastID}`
		const place = url.origin === location.origin ? url.pathname : url.origin + url.pathname
		this.note(`connecting to ${place}${asked}`)

		const began = performance.now()
		const violated = violations
		let response
		try {
			response = await fetch(url, { headers, credentials, cache: 'no-store', signal })
		} catch (error) {
			if (signal.aborted) return {}
			const problem = await this.explain(error, violations > violated, signal)
			// What has worked before is worth another try; a mistake is not.
			return { problem, final: this.openedAt === 0 }
		}
		this.headTime = performance.now() - began
		this.status = response.status + (response.statusText ? ' ' + response.statusText : '')
		this.url = response.redirected ? response.url : ''
		this.headers = [...response.headers]
		this.findProtocol(url, began)
		this.changed()

		const problem = await judge(response, this.status)
		if (signal.aborted) return {}
		if (problem) return { problem, final: true }
		this.problem = null
		this.openedAt = performance.now()
		this.note(`open: ${this.status}, after ${Math.round(this.headTime)} ms`, 'good')
		this.become('open')
		return this.read(response, began, signal)
	}

	async read(response, began, signal) {
		const decoder = new Decoder((item) => this.take(item), { limit: maxEvent, id: this.lastID })
		const reader = response.body.getReader()
		let breath = performance.now()
		try {
			for (;;) {
				const { value, done } = await reader.read()
				if (done) break
				if (this.firstByte === undefined) this.firstByte = performance.now() - began
				this.bytes += value.length
				decoder.push(value)
				if (signal.aborted) return {}
				// Chunks that are there already come as microtasks: a long replay
				// would leave the page no moment to draw itself.
				if (performance.now() - breath > 12) {
					await new Promise((resolve) => setTimeout(resolve))
					breath = performance.now()
				}
			}
		} catch (error) {
			if (signal.aborted) return {}
			if (error instanceof TooLarge) {
				this.control.abort()
				const problem = {
					title: 'The stream brings something larger than 16 Mi characters',
					text: 'One event, or one line without an end. This page reads no further. sse_fanout cuts an origin at max_event_size, 16 MiB unless configured otherwise.',
				}
				this.problem = problem
				this.note(problem.title, 'bad')
				this.become('failed')
				return {}
			}
			return {
				problem: {
					title: 'The connection broke',
					text: 'It ended without the proper end of an answer: the server or something on the way has reset it, or a timeout has cut it.',
				},
			}
		} finally {
			this.findProtocol(this.request.url, began)
		}
		return { note: 'the server has ended the stream' }
	}

	take(item) {
		if (item.kind === 'event') this.events++
		else if (item.kind === 'comment') this.comments++
		if (item.hasID) this.lastID = item.id
		if (item.retry !== undefined) {
			this.retry = Math.min(item.retry, 0x7fffffff) // what a timer takes
			this.retryNamed = true
		}
		this.add(item)
		this.changed()
	}

	/**
	 * Browsers tell the protocol of a request only when it is over. For our own
	 * site, a request beside it over the same connection tells it at once.
	 */
	async findProtocol(url, began) {
		const tell = (name) => {
			const timing = performance.getEntriesByName(name, 'resource').findLast((e) => e.startTime >= began - 1 && e.nextHopProtocol)
			if (timing) {
				this.protocol = timing.nextHopProtocol
				this.changed()
			}
		}
		if (this.protocol === '' && url.origin === location.origin) {
			const beside = here('icon.svg')
			try {
				await fetch(beside, { method: 'HEAD', cache: 'no-store' })
			} catch {
				return
			}
			await new Promise((resolve) => setTimeout(resolve, 50)) // the entry comes a little later
			tell(beside)
		} else {
			await new Promise((resolve) => setTimeout(resolve, 50))
			tell(url.href)
		}
		performance.clearResourceTimings()
	}

	/** Finds out why there is no answer. fetch itself says nothing but that. */
	async explain(error, violated, signal) {
		const { url, headers } = this.request
		const title = `No answer from ${url.host}`
		// The violation may be reported after the fetch has failed.
		const before = violations
		await new Promise((resolve) => setTimeout(resolve, 20))
		if (violated || violations > before) {
			return {
				title: `This page may not connect to ${url.origin}`,
				text: 'Its Content-Security-Policy allows its own site, and what the operator has listed. To allow this one, too:',
				code: `sse_inspector {\n\tconnect ${url.origin}\n}`,
			}
		}
		if (location.protocol === 'https:' && url.protocol === 'http:') {
			return { title, text: 'This page was loaded over https, and browsers do not let such a page read from http (mixed content).' }
		}
		if (url.origin !== location.origin && await answers(url, signal)) {
			const asked = headers.map(([name]) => name)
			if (this.lastID !== '') asked.push('Last-Event-ID')
			const preflight = asked.length === 0 ? '' :
				` For the headers ${asked.join(', ')} the browser asks first, with an OPTIONS request that must be allowed as well.`
			return {
				title: `${url.host} does not allow this page to read its answer (CORS)`,
				text: `It does answer, but its answer must name ${location.origin} in Access-Control-Allow-Origin.${preflight} With sse_fanout:`,
				code: `sse_fanout … {\n\tcors_origins ${location.origin}\n}`,
			}
		}
		if (!navigator.onLine) return { title, text: 'This browser is offline.' }
		return { title, text: `Nothing listens there, the name is unknown, or the connection was refused or reset. The browser says: ${error.message}` }
	}
}

/** Whether a server answers at all, be it that the page may not see what. */
async function answers(url, signal) {
	const control = new AbortController()
	signal.addEventListener('abort', () => control.abort())
	const timer = setTimeout(() => control.abort(), 5000)
	try {
		await fetch(url, { mode: 'no-cors', credentials: 'omit', cache: 'no-store', signal: control.signal })
		return true
	} catch {
		return false
	} finally {
		clearTimeout(timer)
		control.abort()
	}
}

/** Says what is wrong with an answer that is not an event stream. */
async function judge(response, status) {
	const type = response.headers.get('Content-Type') ?? ''
	const isStream = /^\s*text\/event-stream\s*(;|$)/i.test(type)
	if (response.status === 200 && isStream) return null
	const problem = { title: `The server answered ${status}`, text: '' }
	if (response.status === 204) {
		problem.text = 'Which tells an EventSource to stop for good: there is nothing to listen to any more.'
	} else if (response.status === 200) {
		problem.title = 'This is not an event stream'
		problem.text = `The answer has ${type === '' ? 'no Content-Type' : `the Content-Type ${type}`} where an event stream has text/event-stream. An EventSource gives up for good here.`
	} else {
		const why = {
			401: 'It wants to know who is asking. See “Credentials”, or add the header Authorization.',
			403: 'It knows who is asking, and does not allow it.',
			404: 'There is nothing at this URL.',
			429: 'It has had too many requests.',
			502: 'A proxy got no proper answer from what is behind it.',
			503: 'It cannot take more for the moment.',
			504: 'A proxy waited in vain for what is behind it.',
		}[response.status] ?? ''
		problem.text = `${why} An EventSource gives up for good on anything but 200.`.trim()
	}
	problem.snippet = await snippet(response)
	return problem
}

/** The beginning of a body, for as long as it comes within a moment. */
async function snippet(response) {
	if (!response.body) return ''
	const reader = response.body.getReader()
	const decoder = new TextDecoder()
	const timer = setTimeout(() => reader.cancel(), 1000)
	let text = ''
	try {
		while (text.length < snippetSize) {
			const { value, done } = await reader.read()
			if (done) break
			text += decoder.decode(value, { stream: true })
		}
	} catch {
		// What has come will do.
	}
	clearTimeout(timer)
	reader.cancel().catch(() => {})
	return text.length > snippetSize ? text.slice(0, snippetSize) + '…' : text.trim()
}

function sleep(ms, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, ms)
		signal.addEventListener('abort', () => {
			clearTimeout(timer)
			resolve()
		}, { once: true })
	})
}
