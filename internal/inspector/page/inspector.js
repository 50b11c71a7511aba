// The page: what is typed becomes a request, what comes becomes rows. Whatever
// happens only marks something as stale; one function draws it, once a frame.

import { copy } from './clipboard.js'
import { Detail } from './detail.js'
import { $, set } from './dom.js'
import { drawFacts, drawProblem } from './facts.js'
import { withRequest } from './form.js'
import { recall, remember } from './link.js'
import { EventList } from './list.js'
import { Spark } from './spark.js'
import { Store, View } from './store.js'
import { Stream } from './stream.js'
import { Topics } from './topics.js'
import * as words from './words.js'

// The bounds of what the page keeps, twice that while it is paused.
const keepItems = 10000
const keepSize = 64 * 1024 * 1024

let store = new Store(keepItems, keepSize)
let view = new View(store)
let paused = null // how many items had come when the table was held still
const stale = { facts: true, rows: true }
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

const detail = new Detail()
const list = new EventList($('rows'), $('sheet'), {
	selected: (item) => detail.show(item, item && view.at(view.indexOf(item.seq) - 1)),
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
		drawFacts(stream, second.rate)
	}
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
	detail.highlight(regexp)
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

$('search').addEventListener('input', search)
$('comments').addEventListener('click', toggleComments)
$('pause').addEventListener('click', pause)
$('follow').addEventListener('click', () => list.setFollow(!list.follow))
$('copy').addEventListener('click', copyShown)
$('clear').addEventListener('click', clear)

// The selected event.

$('detail-previous').addEventListener('click', () => list.move(-1))
$('detail-next').addEventListener('click', () => list.move(1))
$('detail-close').addEventListener('click', closeDetail)
$('detail-reconnect').addEventListener('click', () => {
	$('last-event-id').value = detail.item.id
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
		else if (detail.item !== null) closeDetail()
		return
	}
	if (typing || !$('keys-on').checked) return
	const act = keys[e.key] ?? (shownView === 'stream' ? streamKeys[e.key] : undefined)
	if (!act) return
	e.preventDefault()
	act()
})

if (recall() === 'topics') show('topics')
if ($('url').value === '' && matchMedia('(pointer: fine)').matches) $('url').focus()
wake()
