// The page: what is typed becomes a request, what comes becomes rows. Whatever
// happens only marks something as stale; one function draws it, once a frame.

import { EventList } from './list.js'
import { looksLikeJSON, prettyJSON } from './json.js'
import { Spark } from './spark.js'
import { Store, View } from './store.js'
import { BadInput, Stream, parseHeaders, parseURL } from './stream.js'
import { Topics } from './topics.js'
import * as words from './words.js'

const $ = (id) => document.getElementById(id)

// The bounds of what the page keeps, twice that while it is paused.
const keepItems = 10000
const keepSize = 64 * 1024 * 1024

// How much of one event is shown, and up to where JSON is set in lines.
const showSize = 256 * 1024

let store = new Store(keepItems, keepSize)
let view = new View(store)
let paused = null // how many items had come when the table was held still
const stale = { facts: true, rows: true, problem: null, headers: null }
let second = { events: 0, rate: 0 } // of the events/s
const rateSpark = new Spark(60)
$('rate-spark').append(rateSpark.element)

const stream = new Stream({
	add(item) {
		store.add(item)
		stale.rows = true
		wake()
	},
	changed() {
		stale.facts = true
		wake()
	},
})

const list = new EventList($('rows'), $('sheet'), {
	selected: showDetail,
	followed: (on) => $('follow').setAttribute('aria-pressed', on),
})
list.show(view, null)

// Drawing.

// A thousand events a second need no more than thirty pictures of them, and
// what is left of the time is for who uses the page.
const pace = 30 // milliseconds from one drawing to the next

let frame = 0
let drawnAt = 0
function wake() {
	if (frame === 0) frame = requestAnimationFrame(draw)
}

function draw(now) {
	frame = 0
	if (now - drawnAt < pace) {
		wake()
		return
	}
	drawnAt = now
	if (stale.rows) {
		stale.rows = false
		// A search through much that is kept goes on in the next frame.
		const all = view.follow(performance.now() + 6)
		list.draw()
		drawShown(all)
		if (!all) {
			stale.rows = true
			wake()
		}
	}
	if (stale.facts) {
		stale.facts = false
		drawFacts()
	}
}

/** Sets a text, if it is another one: this goes on sixty times a second. */
function set(id, text) {
	const element = $(id)
	if (element.textContent !== text) element.textContent = text
}

function drawShown(all) {
	const kept = view.store.next - view.store.first
	const lost = view.store.first - clearedAt
	let text = ''
	if (view.test !== null) text = `${words.count(view.length)} of ${words.count(kept)}${all ? '' : ', searching…'}`
	else if (kept > 0) text = `${words.count(kept)} kept`
	if (lost > 0) text += `, ${words.count(lost)} older ones let go`
	if (paused !== null) text = `Paused, ${words.count(store.next - paused)} more have come. ${text}`
	set('shown', text)
	$('empty').hidden = kept > 0
}

function drawFacts() {
	const s = stream
	const state = $('state')
	state.dataset.state = s.state
	let text = s.state
	if (s.state === 'waiting') text = `reconnecting in ${Math.max(1, Math.ceil((s.waitUntil - performance.now()) / 1000))} s`
	set('state', text)
	const known = s.state !== 'idle'
	set('status', s.status || '–')
	set('protocol', { h2: 'HTTP/2', h3: 'HTTP/3', 'http/1.1': 'HTTP/1.1' }[s.protocol] ?? (s.protocol || (s.state === 'open' ? 'told at the end' : '–')))
	set('first-byte', s.firstByte === undefined ? '–' : words.duration(s.firstByte))
	$('first-byte').title = s.headTime === undefined ? '' : `response headers after ${words.duration(s.headTime)}`
	set('bytes', known ? words.bytes(s.bytes) : '–')
	set('events', known ? words.count(s.events) : '–')
	$('events').title = known ? `and ${words.count(s.comments)} comments` : ''
	set('rate', known ? words.rate(second.rate) : '–')
	set('last-id', s.lastID || '–')
	$('last-id').title = s.lastID
	set('retry', known ? `${s.retryNamed ? '' : '~'}${words.duration(s.retry)}` : '–')
	$('retry').title = s.retryNamed ? 'as the stream has said' : 'the usual of a browser, as the stream has not said'

	const send = $('send')
	set('send', s.running ? 'Stop' : 'Send')
	send.classList.toggle('stop', s.running)
	$('reconnect').disabled = !known
	if (stale.problem !== s.problem) {
		stale.problem = s.problem
		drawProblem(s.problem)
	}
	if (stale.headers !== s.headers) drawResponse(s)
}

function drawProblem(problem) {
	$('problem').hidden = !problem
	$('url').removeAttribute('aria-invalid')
	if (!problem) return
	set('problem-title', problem.title)
	set('problem-text', problem.text)
	$('problem-text').hidden = !problem.text
	set('problem-code', problem.code ?? '')
	$('problem-code').hidden = !problem.code
	set('problem-snippet', problem.snippet ?? '')
	$('problem-snippet').hidden = !problem.snippet
}

function drawResponse(s) {
	stale.headers = s.headers
	set('response-sum', s.headers.length > 0 ? String(s.headers.length) : '')
	const target = $('response-headers')
	target.textContent = ''
	for (const [name, value] of s.headers) {
		const dt = document.createElement('dt')
		dt.textContent = name
		const dd = document.createElement('dd')
		dd.textContent = value
		target.append(dt, dd)
	}
	const notes = []
	if (s.url) notes.push(`Redirected to ${s.url}.`)
	if (s.headers.length > 0 && s.request.url.origin !== location.origin) {
		notes.push('Of another site’s answer, a page sees only what Access-Control-Expose-Headers names.')
	}
	set('response-url', notes.join(' '))
	$('response-url').hidden = notes.length === 0
}

setInterval(() => {
	const events = stream.events
	second.rate = Math.max(0, events - second.events)
	second.events = events
	if (stream.running) {
		rateSpark.add(second.rate)
		if (!document.hidden) rateSpark.draw()
	}
	stale.facts = true
	wake()
}, 1000)

// The request.

const pairs = {}
for (const id of ['query', 'headers']) {
	pairs[id] = () => [...$(id).querySelectorAll('.pair')].map((row) => [...row.children].map((input) => input.value.trim()))
	$(id).addEventListener('input', () => keepEmptyPair(id))
	keepEmptyPair(id)
}

/** There is always one empty row to type in. */
function keepEmptyPair(id) {
	const last = pairs[id]().at(-1)
	if (!last || last[0] !== '' || last[1] !== '') addPair(id)
	const n = [...pairs.query(), ...(pairs.headers?.() ?? [])].filter(([name]) => name !== '').length
	set('parameters-sum', n > 0 ? String(n) : '')
}

function addPair(id, name = '', value = '') {
	const row = document.createElement('div')
	row.className = 'pair'
	const what = id === 'query' ? 'Parameter' : 'Header'
	for (const [label, text] of [[`${what} name`, name], [`${what} value`, value]]) {
		const input = document.createElement('input')
		input.type = 'text'
		input.spellcheck = false
		input.autocapitalize = 'none'
		input.setAttribute('aria-label', label)
		input.placeholder = label.endsWith('name') ? 'name' : 'value'
		input.value = text
		row.append(input)
	}
	$(id).append(row)
}

function readRequest() {
	return {
		url: parseURL($('url').value, pairs.query()),
		headers: parseHeaders(pairs.headers()),
		lastID: $('last-event-id').value,
		credentials: $('credentials').value,
		follow: $('follow-reconnect').checked,
	}
}

/** Does something with the request, or shows what is wrong with it. */
function withRequest(act) {
	let request
	try {
		request = readRequest()
	} catch (error) {
		if (!(error instanceof BadInput)) throw error
		drawProblem({ title: 'This request cannot be sent', text: error.message })
		if (error.field === 'url') {
			$('url').setAttribute('aria-invalid', 'true')
			$('url').focus()
		} else {
			$('parameters').open = true
		}
		return
	}
	act(request)
}

function send() {
	withRequest((request) => {
		second = { events: 0, rate: 0 }
		if (!stream.request || stream.request.url.href !== request.url.href) rateSpark.clear()
		drawProblem(null) // of what was typed before
		remember()
		stream.start(request)
		list.setFollow(true)
	})
}

function sendOrStop() {
	if (stream.running) stream.stop()
	else send()
}

function reconnect() {
	if (stream.state !== 'idle') send()
}

$('send').addEventListener('click', sendOrStop)
$('request').addEventListener('submit', (e) => e.preventDefault())
$('request').addEventListener('keydown', (e) => {
	// Enter means this request, whatever is running.
	if (e.key !== 'Enter' || !(e.target instanceof HTMLInputElement) || e.target.type === 'checkbox') return
	e.preventDefault()
	send()
})
$('reconnect').addEventListener('click', reconnect)

$('copy-curl').addEventListener('click', () => withRequest(({ url, headers, lastID }) => {
	const command = ['curl', '-N', '-H', 'Accept: text/event-stream']
	for (const [name, value] of headers) command.push('-H', `${name}: ${value}`)
	if (lastID !== '') command.push('-H', `Last-Event-ID: ${lastID}`)
	command.push(url.href)
	copy(command.map(words.shellWord).join(' '), 'the curl command')
}))

// The page's own parameters, behind a "#" so that they reach no server's log:
// url, last-event-id, and q as often as there are query parameters. Headers are
// not among them, for they may be secrets. Nothing is sent before Send is
// pressed, or a link could make somebody's browser ask for anything.

function remember() {
	const p = new URLSearchParams()
	p.set('url', $('url').value)
	if ($('last-event-id').value !== '') p.set('last-event-id', $('last-event-id').value)
	for (const [name, value] of pairs.query()) if (name !== '') p.append('q', `${name}=${value}`)
	history.replaceState(null, '', '#' + p)
}

function recall() {
	const known = new Set(['url', 'last-event-id', 'q', 'view'])
	const p = new URLSearchParams(location.hash.slice(1))
	const unknown = [...p.keys()].filter((name) => !known.has(name))
	if (p.has('url')) $('url').value = p.get('url')
	if (p.has('last-event-id')) $('last-event-id').value = p.get('last-event-id')
	const query = p.getAll('q')
	if (query.length > 0) {
		for (const row of $('query').querySelectorAll('.pair')) row.remove()
		for (const q of query) {
			const at = q.indexOf('=')
			addPair('query', at < 0 ? q : q.slice(0, at), at < 0 ? '' : q.slice(at + 1))
		}
		keepEmptyPair('query')
		$('parameters').open = true
	}
	if (unknown.length > 0) {
		drawProblem({
			title: `This link has parameters that the page does not know: ${unknown.join(', ')}`,
			text: 'It knows url, last-event-id, q (name=value, any number) and view (stream or topics). The rest was read.',
		})
	} else if (p.has('view') && p.get('view') !== 'stream' && p.get('view') !== 'topics') {
		drawProblem({ title: `There is no view “${p.get('view')}”`, text: 'There are stream and topics.' })
	}
	if (p.get('view') === 'topics') show('topics')
}

// The table and its tools.

let clearedAt = 0

function search() {
	const text = $('search').value
	const regexp = text === '' ? null : new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i')
	const withComments = $('comments').getAttribute('aria-pressed') === 'true'
	let test = null
	if (regexp !== null || !withComments) {
		test = (item) => {
			if (!withComments && (item.kind === 'comment' || item.kind === 'block')) return false
			if (regexp === null) return true
			return item.kind !== 'note' && (regexp.test(item.data) || item.hasID && regexp.test(item.id) || regexp.test(words.describe(item)))
		}
	}
	view = new View(view.store, test)
	view.follow(performance.now() + 6)
	list.show(view, regexp)
	highlightDetail()
	stale.rows = true
	wake()
}

function showStore(shown) {
	view = new View(shown, view.test)
	view.follow(performance.now() + 6)
	list.show(view, list.highlight)
	stale.rows = true
	wake()
}

function pause() {
	if (paused === null) {
		paused = store.next
		showStore(store.copy())
	} else {
		paused = null
		showStore(store)
	}
	$('pause').setAttribute('aria-pressed', paused !== null)
	set('pause', paused !== null ? 'Go on' : 'Pause')
}

function clear() {
	if (paused !== null) pause()
	store.clear()
	clearedAt = store.first
	list.select(null)
	showStore(store)
}

function toggleComments() {
	const on = $('comments').getAttribute('aria-pressed') !== 'true'
	$('comments').setAttribute('aria-pressed', on)
	search()
}

function copyShown() {
	const lines = []
	for (let i = 0; i < view.length; i++) {
		const item = view.at(i)
		if (item.kind !== 'note') lines.push(words.asWire(item))
	}
	copy(lines.join('\n'), lines.length === 1 ? 'one event' : `${words.count(lines.length)} events`)
}

function copySelected() {
	const item = list.selected === null ? undefined : view.store.at(list.selected)
	if (item) copy(item.data, 'the data')
	else copyShown()
}

async function copy(text, what) {
	try {
		if (navigator.clipboard) {
			await navigator.clipboard.writeText(text)
		} else {
			// Plain http, other than localhost: browsers offer only the old way.
			const area = document.createElement('textarea')
			area.value = text
			area.className = 'hidden'
			document.body.append(area)
			area.select()
			const copied = document.execCommand('copy')
			area.remove()
			if (!copied) throw new Error('refused')
		}
		toast(`Copied ${what}`)
	} catch {
		toast('The browser has not allowed copying')
	}
}

let toastTimer
function toast(text) {
	set('toast', text)
	$('toast').hidden = false
	clearTimeout(toastTimer)
	toastTimer = setTimeout(() => { $('toast').hidden = true }, 1800)
}

$('search').addEventListener('input', search)
$('comments').addEventListener('click', toggleComments)
$('pause').addEventListener('click', pause)
$('follow').addEventListener('click', () => list.setFollow(!list.follow))
$('copy').addEventListener('click', copyShown)
$('clear').addEventListener('click', clear)

// The selected event.

let detail = null
let raw = false

function showDetail(item) {
	if (item?.kind === 'note') item = null
	detail = item
	$('detail').hidden = item === null
	if (item === null) return
	set('detail-title', item.kind === 'event' ? (item.type === '' ? 'message' : item.type) : {
		comment: 'A comment', ignored: 'A line that means nothing', block: 'A block without data',
	}[item.kind])
	const before = view.at(view.indexOf(item.seq) - 1)
	const facts = [['time', words.clock(item.time)]]
	if (before) facts.push(['after', `${words.duration(item.time - before.time)} since the one above`])
	if (item.hasID) facts.push(['id', item.id === '' ? 'empty: resets the last event id' : item.id])
	else if (item.kind === 'event') facts.push(['id', item.id === '' ? 'none' : `none, ${item.id} stays in force`])
	if (item.retry !== undefined) facts.push(['retry', `${item.retry} ms`])
	if (item.kind === 'block') facts.push(['meaning', 'not dispatched: a page does not see it'])
	if (item.kind === 'ignored') facts.push(['meaning', 'neither a field of the format nor a comment'])
	facts.push(['size', `${words.count(item.data.length)} characters`])
	const target = $('detail-facts')
	target.textContent = ''
	for (const [name, value] of facts) {
		const dt = document.createElement('dt')
		dt.textContent = name
		const dd = document.createElement('dd')
		dd.textContent = value
		target.append(dt, dd)
	}
	$('detail-reconnect').hidden = item.kind !== 'event' && item.kind !== 'block'
	$('detail-reconnect').title = `Reconnect with the last event id ${item.id ?? ''}`
	showData()
}

function showData() {
	const { data } = detail
	const target = $('detail-data')
	target.textContent = ''
	const json = data.length <= showSize && looksLikeJSON(data) ? prettyJSON(data) : null
	$('detail-raw').hidden = json === null
	let note = ''
	if (json !== null && !raw) {
		// Runs of one colour are one node.
		let run = null
		for (const [kind, text] of json) {
			if (run !== null && run.kind === kind) {
				run.text += text
				continue
			}
			if (run !== null) target.append(colored(run))
			run = { kind, text }
		}
		if (run !== null) target.append(colored(run))
	} else {
		target.append(data.slice(0, showSize))
		if (data.length > showSize) {
			note = `The first ${words.count(showSize)} of ${words.count(data.length)} characters. Copy takes all.`
		} else if (json === null && looksLikeJSON(data)) {
			note = 'It begins like JSON, but is not.'
		}
	}
	set('detail-note', note)
	$('detail-note').hidden = note === ''
	target.scrollTop = 0
	highlightDetail()
}

function colored({ kind, text }) {
	if (kind === '') return text
	const span = document.createElement('span')
	span.className = kind === 'number' ? 'number-token' : kind
	span.textContent = text
	return span
}

/** Marks what is searched for, without touching the text. */
function highlightDetail() {
	if (!('highlights' in CSS)) return
	CSS.highlights.delete('found')
	if (detail === null || list.highlight === null) return
	const ranges = []
	const regexp = new RegExp(list.highlight.source, 'gi')
	const walk = document.createTreeWalker($('detail-data'), NodeFilter.SHOW_TEXT)
	while (walk.nextNode() && ranges.length < 1000) {
		for (const match of walk.currentNode.data.matchAll(regexp)) {
			const range = new Range()
			range.setStart(walk.currentNode, match.index)
			range.setEnd(walk.currentNode, match.index + match[0].length)
			ranges.push(range)
		}
	}
	if (ranges.length > 0) CSS.highlights.set('found', new Highlight(...ranges))
}

$('detail-previous').addEventListener('click', () => list.move(-1))
$('detail-next').addEventListener('click', () => list.move(1))
$('detail-close').addEventListener('click', closeDetail)
$('detail-copy').addEventListener('click', () => copy(detail.data, 'the data'))
$('detail-raw').addEventListener('click', () => {
	raw = !raw
	$('detail-raw').setAttribute('aria-pressed', raw)
	showData()
})
$('detail-reconnect').addEventListener('click', () => {
	$('last-event-id').value = detail.id
	send()
})

function closeDetail() {
	list.select(null)
	$('rows').focus({ preventScroll: true })
}

// The views.

const topics = new Topics($('view-topics'))
let shownView = 'stream'

function show(name) {
	shownView = name
	for (const other of ['stream', 'topics']) {
		$('view-' + other).hidden = other !== name
		const tab = $('tab-' + other)
		tab.setAttribute('aria-selected', other === name)
		tab.tabIndex = other === name ? 0 : -1
	}
	listenToTopics()
	if (name === 'stream') list.redraw()
}

/** The topics cost the server a look a second: only while they are looked at. */
function listenToTopics() {
	if (shownView === 'topics' && !document.hidden) topics.open()
	else topics.close()
}
document.addEventListener('visibilitychange', listenToTopics)

for (const name of ['stream', 'topics']) {
	const tab = $('tab-' + name)
	tab.addEventListener('click', () => show(name))
	tab.addEventListener('keydown', (e) => {
		if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return
		const other = name === 'stream' ? 'topics' : 'stream'
		show(other)
		$('tab-' + other).focus()
	})
}

// The keyboard.

const keysOff = 'sse_inspector.keys-off'
$('keys-on').checked = localStorage.getItem(keysOff) === null
$('keys-on').addEventListener('change', () => {
	if ($('keys-on').checked) localStorage.removeItem(keysOff)
	else localStorage.setItem(keysOff, '1')
})
$('help-open').addEventListener('click', () => $('help').showModal())

const keys = {
	1: () => show('stream'),
	2: () => show('topics'),
	'?': () => $('help').showModal(),
	'/': () => (shownView === 'stream' ? $('search') : $('topics-filter')).select(),
}
const streamKeys = {
	u: () => $('url').select(),
	s: sendOrStop,
	r: reconnect,
	j: () => list.move(1),
	k: () => list.move(-1),
	f: () => list.setFollow(!list.follow),
	p: pause,
	m: toggleComments,
	y: copySelected,
	c: clear,
}

addEventListener('keydown', (e) => {
	if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || $('help').open) return
	const typing = e.target instanceof HTMLInputElement && e.target.type !== 'checkbox' || e.target instanceof HTMLSelectElement
	if (e.key === 'Escape') {
		if (typing) e.target.blur()
		else if (detail !== null) closeDetail()
		return
	}
	if (typing || !$('keys-on').checked) return
	const act = keys[e.key] ?? (shownView === 'stream' ? streamKeys[e.key] : undefined)
	if (!act) return
	e.preventDefault()
	act()
})

recall()
if ($('url').value === '' && matchMedia('(pointer: fine)').matches) $('url').focus()
wake()
