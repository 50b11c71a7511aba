// What is known of the connection: its figures, what is wrong with it, and the
// headers of the response.

import { $, set, setPairs } from './dom.js'
import * as words from './words.js'

const shown = { problem: null, headers: null } // of the stream

/** s is a stream, rate its events a second lately. */
export function drawFacts(s, rate) {
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
	set('rate', known ? words.rate(rate) : '–')
	set('last-id', s.lastID || '–')
	$('last-id').title = s.lastID
	set('retry', known ? `${s.retryNamed ? '' : '~'}${words.duration(s.retry)}` : '–')
	$('retry').title = s.retryNamed ? 'as the stream has said' : 'the usual of a browser, as the stream has not said'

	const send = $('send')
	set('send', s.running ? 'Stop' : 'Send')
	send.classList.toggle('stop', s.running)
	$('reconnect').disabled = !known
	if (shown.problem !== s.problem) {
		shown.problem = s.problem
		drawProblem(s.problem)
	}
	if (shown.headers !== s.headers) drawResponse(s)
}

export function drawProblem(problem) {
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
	shown.headers = s.headers
	set('response-sum', s.headers.length > 0 ? String(s.headers.length) : '')
	setPairs('response-headers', s.headers)
	const notes = []
	if (s.url) notes.push(`Redirected to ${s.url}.`)
	if (s.headers.length > 0 && s.request.url.origin !== location.origin) {
		notes.push('Of another site’s answer, a page sees only what Access-Control-Expose-Headers names.')
	}
	set('response-url', notes.join(' '))
	$('response-url').hidden = notes.length === 0
}
