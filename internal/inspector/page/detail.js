// The selected event: its facts, and its data as it was sent or with JSON set in
// lines.

import { copy } from './clipboard.js'
import { $, set, setPairs } from './dom.js'
import { looksLikeJSON, prettyJSON } from './json.js'
import * as words from './words.js'

// How much of one event is shown, and up to where JSON is set in lines.
const showSize = 256 * 1024

export class Detail {
	constructor() {
		this.item = null
		this.raw = false
		this.found = null // RegExp
		$('detail-copy').addEventListener('click', () => copy(this.item.data, 'the data'))
		$('detail-raw').addEventListener('click', () => {
			this.raw = !this.raw
			$('detail-raw').setAttribute('aria-pressed', this.raw)
			this.showData()
		})
	}

	/** before is the item in the row above, if there is one. */
	show(item, before) {
		if (item?.kind === 'note') item = null
		this.item = item
		$('detail').hidden = item === null
		if (item === null) return
		set('detail-title', item.kind === 'event' ? (item.type === '' ? 'message' : item.type) : {
			comment: 'A comment', ignored: 'A line that means nothing', block: 'A block without data',
		}[item.kind])
		const facts = [['time', words.clock(item.time)]]
		if (before) facts.push(['after', `${words.duration(item.time - before.time)} since the one above`])
		if (item.hasID) facts.push(['id', item.id === '' ? 'empty: resets the last event id' : item.id])
		else if (item.kind === 'event') facts.push(['id', item.id === '' ? 'none' : `none, ${item.id} stays in force`])
		if (item.retry !== undefined) facts.push(['retry', `${item.retry} ms`])
		if (item.kind === 'block') facts.push(['meaning', 'not dispatched: a page does not see it'])
		if (item.kind === 'ignored') facts.push(['meaning', 'neither a field of the format nor a comment'])
		facts.push(['size', `${words.count(item.data.length)} characters`])
		setPairs('detail-facts', facts)
		$('detail-reconnect').hidden = item.kind !== 'event' && item.kind !== 'block'
		$('detail-reconnect').title = `Reconnect with the last event id ${item.id ?? ''}`
		this.showData()
	}

	showData() {
		const { data } = this.item
		const target = $('detail-data')
		target.textContent = ''
		const json = data.length <= showSize && looksLikeJSON(data) ? prettyJSON(data) : null
		$('detail-raw').hidden = json === null
		let note = ''
		if (json !== null && !this.raw) {
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
		this.drawFound()
	}

	/** Marks what is searched for, without touching the text. */
	highlight(regexp) {
		this.found = regexp
		this.drawFound()
	}

	drawFound() {
		if (!('highlights' in CSS)) return
		CSS.highlights.delete('found')
		if (this.item === null || this.found === null) return
		const ranges = []
		const regexp = new RegExp(this.found.source, 'gi')
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
}

function colored({ kind, text }) {
	if (kind === '') return text
	const span = document.createElement('span')
	span.className = kind === 'number' ? 'number-token' : kind
	span.textContent = text
	return span
}
