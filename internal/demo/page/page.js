// The page of the demo: one EventSource for the sentences, one for the numbers
// while the page is visible, and one for the clock when it is asked for.

const $ = (id) => document.getElementById(id)
const calm = matchMedia('(prefers-reduced-motion: reduce)')

const shownEvents = 60 // rows kept in the list
const shownDots = 72 // clients drawn one by one
const usualRetry = 3000 // EventSource's own, where we must reconnect ourselves

// The sentences.

let source, last = null, lastAt = 0, wasOpen = false
let heard = 0, gaps = 0, replayed = 0
let away = false // the origin or Caddy was, and what was missed may still come

function listen() {
	// EventSource says the last id by itself when it reconnects. Only when it
	// has given up, on a status other than 200, must we say it.
	source = new EventSource('events/sentences' + (last === null ? '' : '?lastEventId=' + last))
	source.onopen = () => {
		setState('open')
		wasOpen = true
	}
	source.onerror = () => {
		away = true
		setState(wasOpen ? 'reconnecting' : 'connecting')
		if (source.readyState === EventSource.CLOSED) {
			setState('refused')
			setTimeout(listen, usualRetry)
		}
	}
	source.onmessage = (e) => hear(Number(e.lastEventId), e.data)
}

function setState(state) {
	const pill = $('state')
	if (pill.dataset.state === state) return
	pill.dataset.state = state
	pill.textContent = state
}

function hear(id, text) {
	const now = performance.now()
	// A sentence is said each second. What comes after a longer pause, or on
	// the heels of another, was said while nobody could be told.
	const late = away && last !== null && (now - lastAt > 1500 || now - lastAt < 300)
	if (!late && !stats?.origin.down) away = false
	if (last !== null && id !== last + 1) {
		if (id + 600 < last) tell('The origin began again, with a new day’s numbers.')
		else gaps++
	}
	last = id
	lastAt = now
	heard++
	if (late) replayed++

	const row = document.createElement('li')
	row.append(cell('id', id), cell('text', text))
	if (late) row.append(cell('tag', 'replayed'))
	const list = $('events')
	list.prepend(row)
	while (list.children.length > shownEvents) list.lastChild.remove()

	$('events-count').textContent = heard
	$('last-id').textContent = id
	showGaps()
	if (!late || now - pulsedAt > 250) pulse()
}

function cell(name, text) {
	const span = document.createElement('span')
	span.className = name
	span.textContent = text
	return span
}

function showGaps() {
	const all = gaps + (stats ? stats.crowd.gaps : 0)
	$('gaps').textContent = all
	$('gaps-fact').classList.toggle('bad', all > 0)
}

// The numbers. A hidden page does without them: a browser holds six connections
// to a site, and each open tab is to have one for its sentences.

let statsSource, stats, refused = 0, wasDown = false

function watchStats() {
	statsSource?.close()
	if (document.hidden) return
	statsSource = new EventSource('demo/stats')
	statsSource.onmessage = (e) => {
		$('flow').classList.remove('stale')
		stats = JSON.parse(e.data)
		show()
	}
	statsSource.onerror = () => {
		// Both streams fail when Caddy is away, but in no certain order.
		setTimeout(() => {
			if (!stats || source.readyState === EventSource.OPEN) return
			$('flow').classList.add('stale')
			$('sum').textContent = 'Caddy is away. This browser will say the last id it heard.'
		}, 300)
		if (statsSource.readyState === EventSource.CLOSED) setTimeout(watchStats, usualRetry)
	}
}

function show() {
	const { clients, origin, crowd } = stats
	const count = (n, word) => `${n.toLocaleString('en')} ${word}${n === 1 ? '' : 's'}`
	const set = (name, n) => document.querySelectorAll(`[data-n=${name}]`).forEach((el) => { el.textContent = n })
	set('clients', clients.toLocaleString('en'))
	set('connections', origin.connections)
	set('limit', spell(origin.limit))
	$('clients-word').textContent = clients === 1 ? 'client' : 'clients'
	$('connections-word').textContent = origin.connections === 1 ? 'connection' : 'connections'
	$('origin').classList.toggle('down', origin.down)
	$('origin-note').textContent = origin.down ? 'origin, restarting…' : `origin, limit ${origin.limit}`

	if (origin.down) {
		$('sum').textContent = `The origin is away. ${count(clients, 'client')} still connected.`
	} else if (origin.connections === 0 && clients > 0) {
		$('sum').textContent = 'The origin is back. Caddy is about to ask it for what is missing.'
	} else {
		$('sum').textContent = `${count(clients, 'client')} on ${count(origin.connections, 'connection')} to the origin`
	}

	$('more').hidden = $('less').hidden = crowd.limit === 0
	$('more').disabled = crowd.open >= crowd.limit
	$('less').disabled = crowd.open === 0
	$('restart').disabled = origin.down

	if (origin.down && !wasDown) {
		replayed = 0
		wasDown = away = true
		tell('The origin has dropped every connection and refuses new ones for three seconds. No client is told.')
	} else if (wasDown && !origin.down && origin.connections > 0) {
		wasDown = false
		// Let what was missed arrive before it is counted.
		setTimeout(() => {
			if (!wasDown) tell(`Caddy said the last id it had, and the origin told the rest: ${count(replayed, 'event')} replayed, ${count(gaps + stats.crowd.gaps, 'gap')}.`)
		}, 900)
	}
	if (crowd.refused > refused) tell(`${count(crowd.refused - refused, 'client')} got a no from the origin, and gave up.`)
	refused = crowd.refused

	showGaps()
	showTabs()
	drawDots(clients)
	drawSlots(origin)
	drawWires()
}

const words = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten']
const spell = (n) => words[n] ?? n

function tell(text) { $('news').textContent = text }

// The picture.

function drawDots(n) {
	const dots = $('dots')
	const wanted = Math.min(n, shownDots)
	dots.querySelector('.rest')?.remove()
	while (dots.children.length > wanted) dots.lastChild.remove()
	while (dots.children.length < wanted) dots.append(document.createElement('i'))
	dots.classList.toggle('few', n <= 16)
	// About as high as wide beside Caddy; above it, as wide as there is room.
	const size = n <= 16 ? 27 : 20
	const beside = $('origin').offsetTop < $('caddy').offsetTop + $('caddy').offsetHeight
	dots.style.maxWidth = beside ? Math.ceil(Math.sqrt(wanted)) * size + 'px' : ''
	if (n > shownDots) dots.append(cell('rest', `and ${(n - shownDots).toLocaleString('en')} more`))
}

function drawSlots({ limit, connections }) {
	const slots = $('slots')
	const wanted = Math.min(limit, 50)
	while (slots.children.length > wanted) slots.lastChild.remove()
	while (slots.children.length < wanted) slots.append(document.createElement('i'))
	;[...slots.children].forEach((slot, i) => slot.classList.toggle('used', i < connections))
}

let upstream = [], downstream = []

// drawWires joins each client to Caddy, and Caddy to each connection of the
// origin, from wherever the layout has put them: side by side, or on a phone
// one below the other.
function drawWires() {
	const svg = $('wires')
	const box = svg.getBoundingClientRect()
	const place = (el) => {
		const r = el.getBoundingClientRect()
		return { l: r.left - box.left, r: r.right - box.left, t: r.top - box.top, b: r.bottom - box.top, x: (r.left + r.right) / 2 - box.left, y: (r.top + r.bottom) / 2 - box.top }
	}
	const caddy = place($('caddy')), origin = place($('origin'))
	const upright = origin.t > caddy.b
	// A curve that leaves and arrives straight.
	const wire = (x1, y1, x2, y2) => upright
		? `M${x1},${y1} C${x1},${(y1 + y2) / 2} ${x2},${(y1 + y2) / 2} ${x2},${y2}`
		: `M${x1},${y1} C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`

	const up = []
	const n = stats.origin.down || stats.origin.connections === 0 ? 1 : Math.min(stats.origin.connections, 10)
	for (let i = 0; i < n; i++) {
		const off = (i - (n - 1) / 2) * 16
		up.push(upright ? wire(origin.x + off, origin.t, caddy.x + off, caddy.b) : wire(origin.l, origin.y + off, caddy.r, caddy.y + off))
	}
	const down = [...$('dots').querySelectorAll('i')].map((dot) => {
		const d = place(dot)
		return upright ? wire(caddy.x, caddy.t, d.x, d.b) : wire(caddy.l, caddy.y, d.r, d.y)
	})
	upstream = sync(upstream, up, 'up')
	downstream = sync(downstream, down, '')
	for (const path of upstream) path.classList.toggle('down', stats.origin.connections === 0)

	function sync(paths, shapes, name) {
		while (paths.length > shapes.length) paths.pop().remove()
		while (paths.length < shapes.length) {
			const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
			path.setAttribute('class', name)
			svg.prepend(path)
			paths.push(path)
		}
		shapes.forEach((d, i) => paths[i].setAttribute('d', d))
		return paths
	}
}

// pulse shows an event on its way: once over the one connection, then over all
// the others at the same time.
let pulsedAt = 0
function pulse() {
	if (!stats || document.hidden || upstream.length === 0) return
	pulsedAt = performance.now()
	const arrive = () => {
		for (const path of downstream) path.classList.add('lit')
		setTimeout(() => { for (const path of downstream) path.classList.remove('lit') }, 160)
	}
	if (calm.matches) return
	const wire = upstream[0]
	const length = wire.getTotalLength()
	const dot = document.createElementNS('http://www.w3.org/2000/svg', 'circle')
	dot.setAttribute('r', 6)
	$('wires').append(dot)
	const start = performance.now()
	const step = (now) => {
		const t = Math.min(Math.max(now - start, 0) / 260, 1)
		const at = wire.getPointAtLength(length * t)
		dot.setAttribute('cx', at.x)
		dot.setAttribute('cy', at.y)
		if (t < 1) return requestAnimationFrame(step)
		dot.remove()
		arrive()
	}
	requestAnimationFrame(step)
}

// What the buttons do.

async function ask(method, path, body) {
	try {
		const response = await fetch(path, { method, body: body && JSON.stringify(body) })
		if (!response.ok) throw new Error(`the server said ${response.status}`)
		return true
	} catch (err) {
		tell(`That did not work: ${err.message}.`)
		return false
	}
}

$('more').onclick = async () => {
	if (await ask('POST', 'demo/clients', { n: 10 })) tell('Ten more clients, each with a connection of its own to Caddy. The origin has not noticed.')
}
$('less').onclick = async () => {
	if (await ask('DELETE', 'demo/clients')) tell('Ten by ten they came, and all at once they left. The origin has not noticed that either.')
}
$('restart').onclick = () => ask('POST', 'demo/restart')

let clockSource
$('clock-toggle').onclick = (e) => {
	const open = !clockSource
	if (open) {
		clockSource = new EventSource('events/clock')
		clockSource.onmessage = (event) => { $('clock').textContent = event.data }
	} else {
		clockSource.close()
		clockSource = undefined
		$('clock').textContent = '--:--:--'
	}
	$('clock').classList.toggle('on', open)
	e.target.setAttribute('aria-pressed', open)
	e.target.textContent = open ? 'Close the clock' : 'Open the clock'
}

let tabsNote
$('tabs-toggle').onclick = (e) => {
	const tabs = $('tabs')
	const open = tabs.children.length === 0
	tabsNote ??= $('tabs-note').textContent
	if (open) {
		for (let i = 1; i <= 10; i++) {
			const frame = document.createElement('iframe')
			frame.src = 'tab.html'
			frame.title = `Tab ${i}`
			tabs.append(frame)
		}
	} else {
		tabs.replaceChildren()
	}
	e.target.setAttribute('aria-pressed', open)
	e.target.textContent = open ? 'Close the tabs' : 'Open ten tabs'
	showTabs()
}

// showTabs says what Caddy counts.
function showTabs() {
	if ($('tabs').children.length === 0) {
		if (tabsNote) $('tabs-note').textContent = tabsNote
		return
	}
	const n = stats?.connections ?? 0
	$('tabs-note').textContent = `Ten tabs with two streams each. Caddy counts ${spell(n)} connection${n === 1 ? '' : 's'} for all of them.`
}

document.querySelector('[data-site]').textContent = location.protocol === 'http:' ? location.host : location.origin
document.addEventListener('visibilitychange', watchStats)
new ResizeObserver(() => {
	if (!stats) return
	drawDots(stats.clients)
	drawWires()
}).observe($('flow'))
listen()
watchStats()
