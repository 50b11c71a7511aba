// What a page may ask for: the URL and the headers of a request, checked.

/** What a page is not allowed to set, and fetch drops without a word. */
const forbidden = new Set(`accept-charset accept-encoding access-control-request-headers
	access-control-request-method connection content-length cookie cookie2 date dnt expect host
	keep-alive origin referer set-cookie te trailer transfer-encoding upgrade via`.split(/\s+/))

/** What is wrong with what the user has typed. */
export class BadInput extends Error {
	constructor(message, field) {
		super(message)
		this.field = field
	}
}

/** Reads a URL as the user means it: relative to the site, not to this page. */
export function parseURL(text, query = []) {
	text = text.trim()
	if (text === '') throw new BadInput('Enter the URL of an event stream, such as /events.', 'url')
	let url
	try {
		url = new URL(text, location.origin + '/')
	} catch {
		throw new BadInput(`“${text}” is not a URL. Write it as /events or https://example.com/events.`, 'url')
	}
	if (url.protocol !== 'http:' && url.protocol !== 'https:') {
		const meant = /^[^/]*:[0-9]/.test(text) ? ` Did you mean http://${text}?` : ''
		throw new BadInput(`A browser reads event streams from http: and https: URLs, not from ${url.protocol}${meant}`, 'url')
	}
	if (url.username !== '' || url.password !== '') {
		throw new BadInput('A page cannot send a user name in the URL. Add the header Authorization instead.', 'url')
	}
	url.hash = ''
	for (const [name, value] of query) {
		if (name === '' && value === '') continue
		if (name === '') throw new BadInput(`The query parameter with the value “${value}” has no name.`, 'query')
		url.searchParams.append(name, value)
	}
	return url
}

/** Checks headers: [name, value] pairs, with empty rows among them. */
export function parseHeaders(rows) {
	const headers = []
	for (const [name, value] of rows) {
		if (name === '' && value === '') continue
		const lower = name.toLowerCase()
		if (forbidden.has(lower) || lower.startsWith('sec-') || lower.startsWith('proxy-')) {
			const instead = lower === 'cookie' ? ' The cookies of this site are sent as “Credentials” says.' : ''
			throw new BadInput(`A browser does not let a page set the header ${name}.${instead}`, 'headers')
		}
		if (lower === 'last-event-id') {
			throw new BadInput('Last-Event-ID has a field of its own, since a reconnection must change it.', 'headers')
		}
		try {
			new Headers([[name, wire(value)]])
		} catch {
			throw new BadInput(`“${name}: ${value}” is not a header: its name or its value has a character that is not allowed.`, 'headers')
		}
		headers.push([name, value])
	}
	return headers
}

/** A header's value as bytes in UTF-8: fetch takes one byte for a character. */
export function wire(text) {
	let bytes = ''
	for (const b of new TextEncoder().encode(text)) bytes += String.fromCharCode(b)
	return bytes
}
