// The request as it is typed: the URL, and rows of names and values.

import { copy } from './clipboard.js'
import { $, set } from './dom.js'
import { drawProblem } from './facts.js'
import { BadInput, parseHeaders, parseURL } from './request.js'
import * as words from './words.js'

export const pairs = {}
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

/** Puts other rows in the place of those of the query. */
export function fillQuery(rows) {
	for (const row of $('query').querySelectorAll('.pair')) row.remove()
	for (const [name, value] of rows) addPair('query', name, value)
	keepEmptyPair('query')
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
export function withRequest(act) {
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

$('copy-curl').addEventListener('click', () => withRequest(({ url, headers, lastID }) => {
	const command = ['curl', '-N', '-H', 'Accept: text/event-stream']
	for (const [name, value] of headers) command.push('-H', `${name}: ${value}`)
	if (lastID !== '') command.push('-H', `Last-Event-ID: ${lastID}`)
	command.push(url.href)
	copy(command.map(words.shellWord).join(' '), 'the curl command')
}))
