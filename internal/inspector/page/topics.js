// The topics of this Caddy: an event stream of the module itself, of which each
// event is a snapshot of all there is to see. A browser's own EventSource reads
// it, and comes back by itself.

import { here } from './stream.js'
import { Spark } from './spark.js'
import { bytes, count, duration, rate } from './words.js'

const seconds = 60 // that a sparkline shows

const columns = {
	name: (a, b) => a.name.localeCompare(b.name),
	subscribers: (a, b) => b.subscribers + b.waiting - a.subscribers - a.waiting || a.name.localeCompare(b.name),
	rate: (a, b) => b.events_per_second - a.events_per_second || a.name.localeCompare(b.name),
}

export class Topics {
	constructor(root) {
		this.find = (name) => root.querySelector(`[data-topics="${name}"]`)
		this.body = this.find('rows')
		this.table = this.body.closest('table')
		this.rows = new Map() // by the topic's name
		this.newest = null // snapshot
		this.order = 'subscribers'
		this.totals = { subscribers: new Spark(seconds), rate: new Spark(seconds) }
		this.find('spark-subscribers').append(this.totals.subscribers.element)
		this.find('spark-rate').append(this.totals.rate.element)
		this.find('filter').addEventListener('input', () => this.draw())
		this.find('again').addEventListener('click', () => this.open())
		for (const button of root.querySelectorAll('[data-order]')) {
			button.addEventListener('click', () => {
				this.order = button.dataset.order
				for (const other of root.querySelectorAll('[data-order]')) {
					other.closest('th').setAttribute('aria-sort', other === button ? (this.order === 'name' ? 'ascending' : 'descending') : 'none')
				}
				this.draw()
			})
		}
		this.say('connecting')
	}

	/** Listens for as long as somebody looks. */
	open() {
		if (this.source && this.source.readyState !== EventSource.CLOSED) return
		this.say('connecting')
		this.source = new EventSource(here('topics'))
		this.source.onopen = () => this.say('live')
		this.source.onerror = () => this.say(this.source.readyState === EventSource.CLOSED ? 'refused' : 'reconnecting')
		this.source.onmessage = (e) => {
			let snapshot
			try {
				snapshot = JSON.parse(e.data)
			} catch {
				this.say('unreadable')
				return
			}
			this.take(snapshot)
		}
	}

	close() {
		this.source?.close()
		this.source = null
	}

	say(state) {
		const pill = this.find('state')
		pill.dataset.state = state
		pill.textContent = state
		this.find('problem').hidden = state !== 'refused' && state !== 'unreadable'
		this.find('problem-text').textContent = state === 'unreadable'
			? 'The snapshots cannot be read: something on the way has changed them.'
			: 'The server has refused the stream of topics. Are you still logged in?'
	}

	take(snapshot) {
		// After a pause of the stream, what is between belongs to no line.
		if (this.newest && (snapshot.time < this.newest.time || snapshot.time - this.newest.time > 5000)) this.forget()
		this.newest = snapshot
		this.totals.subscribers.add(snapshot.subscribers)
		this.totals.rate.add(snapshot.events_per_second)
		const seen = new Set()
		for (const topic of snapshot.topics) {
			// Two have one name while one takes over from the other.
			let key = topic.name
			while (seen.has(key)) key += ' +'
			seen.add(key)
			let row = this.rows.get(key)
			if (!row) {
				row = newRow()
				this.rows.set(key, row)
			}
			row.topic = topic
			row.subscribers.add(topic.subscribers + topic.waiting)
			row.rate.add(topic.events_per_second)
		}
		for (const [name, row] of this.rows) {
			if (seen.has(name)) continue
			row.element.remove()
			this.rows.delete(name)
		}
		this.dirty = true
		// A replay brings a minute of snapshots at once.
		requestAnimationFrame(() => { if (this.dirty) this.draw() })
	}

	forget() {
		for (const row of this.rows.values()) row.element.remove()
		this.rows.clear()
		for (const spark of Object.values(this.totals)) spark.clear()
	}

	draw() {
		this.dirty = false
		const s = this.newest
		if (!s) return
		this.table.classList.toggle('in-fleet', s.topics.some((topic) => topic.fleet))
		this.find('count').textContent = count(s.topic_count)
		this.find('subscribers').textContent = count(s.subscribers)
		this.find('rate').textContent = rate(s.events_per_second)
		this.find('down').textContent = count(s.down)
		this.find('connections').textContent = count(s.connections)
		this.find('connections').title = `They have ${count(s.streams)} streams.`
		this.find('down-tile').classList.toggle('bad', s.down > 0)
		for (const spark of Object.values(this.totals)) spark.draw()

		const words = this.find('filter').value.toLowerCase().split(/\s+/).filter(Boolean)
		const shown = [...this.rows.values()]
			.filter(({ topic }) => words.every((word) => [topic.name.toLowerCase(), topic.state, topic.fleet?.role ?? ''].some((text) => text.includes(word))))
			.sort((a, b) => columns[this.order](a.topic, b.topic))
		// Rows that stand where they belong are left alone: moving an element
		// takes the focus and the selection of text away.
		let at = this.body.firstElementChild
		for (const row of shown) {
			fill(row, s.time)
			if (row.element === at) at = at.nextElementSibling
			else this.body.insertBefore(row.element, at)
		}
		while (at) {
			const next = at.nextElementSibling
			at.remove()
			at = next
		}
		const missing = s.topic_count - s.topics.length
		const more = this.find('more')
		more.hidden = missing <= 0
		more.textContent = `${count(missing)} more topics with fewer subscribers are not listed. The admin API has all: GET /sse_fanout/topics.`
		const empty = this.find('empty')
		empty.hidden = shown.length > 0
		empty.textContent = words.length > 0 ? 'No topic matches.' : 'No topic is open. One is opened by its first client.'
	}
}

function newRow() {
	const element = document.createElement('tr')
	const cell = (name, label) => {
		const td = document.createElement('td')
		td.className = name
		td.dataset.label = label
		element.append(td)
		return td
	}
	const child = (parent, tag, name) => {
		const e = document.createElement(tag)
		e.className = name
		parent.append(e)
		return e
	}
	const row = { element, subscribers: new Spark(seconds), rate: new Spark(seconds) }
	const name = cell('name', '')
	row.place = child(name, 'span', 'place')
	row.hash = child(name, 'span', 'hash')
	const state = cell('state', '')
	row.pill = child(state, 'span', 'pill')
	row.why = child(state, 'span', 'why')
	const fleet = cell('fleet', 'fleet')
	row.role = child(fleet, 'span', 'pill')
	row.part = child(fleet, 'span', 'why')
	const subscribers = cell('number', 'subscribers')
	row.subscribersNumber = child(subscribers, 'b', '')
	subscribers.append(row.subscribers.element)
	const rates = cell('number', 'events/s')
	row.rateNumber = child(rates, 'b', '')
	rates.append(row.rate.element)
	row.lastID = cell('last-id', 'last id')
	row.history = cell('history', 'history')
	return row
}

function set(element, text) {
	if (element.textContent !== text) element.textContent = text
}

function fill(row, now) {
	const { topic } = row
	const [place, hash] = topic.name.split(' ')
	set(row.place, place)
	set(row.hash, hash ?? '')
	set(row.pill, topic.state)
	row.pill.dataset.state = topic.state
	const since = Date.parse(topic.since)
	const parts = [Number.isNaN(since) ? '' : `for ${duration(now - since)}`]
	if (topic.state !== 'connected') {
		const { attempts, next, last_error: error } = topic.upstream
		if (attempts > 0) parts.push(`${count(attempts)} failed ${attempts === 1 ? 'attempt' : 'attempts'}`)
		const until = Date.parse(next) - now
		if (until > 0) parts.push(`the next in ${duration(until)}`)
		if (error) parts.push(error)
	}
	if (topic.upstream.address) parts.unshift(topic.upstream.address)
	set(row.why, parts.filter(Boolean).join(', '))
	fillFleet(row, topic.fleet)
	set(row.subscribersNumber, count(topic.subscribers + topic.waiting))
	row.subscribersNumber.title = topic.waiting > 0 ? `${count(topic.waiting)} of them wait for the origin’s first answer` : ''
	set(row.rateNumber, rate(topic.events_per_second))
	row.subscribers.draw()
	row.rate.draw()
	set(row.lastID, topic.last_event_id || '–')
	row.lastID.title = topic.last_event_id ?? ''
	set(row.history, `${count(topic.log.events)} events, ${bytes(topic.log.bytes)}`)
}

/** What this node is for the topic in the fleet of its nodes. */
function fillFleet(row, part) {
	row.role.hidden = !part
	set(row.role, part?.role ?? '')
	row.role.dataset.role = part?.role ?? ''
	const parts = []
	if (part?.role === 'follower' && part.holder) parts.push(`${part.holder} asks the origin`)
	if (part?.role === 'apart') parts.push('it asks the origin for itself', part.error)
	if (part?.lag > 0) parts.push(`${count(part.lag)} messages behind`)
	set(row.part, parts.filter(Boolean).join(', '))
}
