// The page's own parameters, behind a "#" so that they reach no server's log:
// url, last-event-id, and q as often as there are query parameters. Headers are
// not among them, for they may be secrets. Nothing is sent before Send is
// pressed, or a link could make somebody's browser ask for anything.

import { $ } from './dom.js'
import { drawProblem } from './facts.js'
import { fillQuery, pairs } from './form.js'

/** Puts the request into the page's own URL. */
export function remember() {
	const p = new URLSearchParams()
	p.set('url', $('url').value)
	if ($('last-event-id').value !== '') p.set('last-event-id', $('last-event-id').value)
	for (const [name, value] of pairs.query()) if (name !== '') p.append('q', `${name}=${value}`)
	history.replaceState(null, '', '#' + p)
}

/** Fills the form from the page's own URL, and returns the view that it names. */
export function recall() {
	const known = new Set(['url', 'last-event-id', 'q', 'view'])
	const p = new URLSearchParams(location.hash.slice(1))
	const unknown = [...p.keys()].filter((name) => !known.has(name))
	if (p.has('url')) $('url').value = p.get('url')
	if (p.has('last-event-id')) $('last-event-id').value = p.get('last-event-id')
	const query = p.getAll('q')
	if (query.length > 0) {
		fillQuery(query.map((q) => {
			const at = q.indexOf('=')
			return at < 0 ? [q, ''] : [q.slice(0, at), q.slice(at + 1)]
		}))
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
	return p.get('view')
}
