// The table of events. It has rows for what can be seen, and moves and refills
// them: ten thousand events cost the page no more than thirty. All rows are of
// one height, so that where an event stands follows from its index.

import { clock, oneLine, describe } from './words.js'

const overscan = 6 // rows above and below what can be seen

export class EventList {
	/**
	 * viewport scrolls, sheet is as high as all rows together. selected is
	 * called with an item, or null.
	 */
	constructor(viewport, sheet, { selected, followed }) {
		this.viewport = viewport
		this.sheet = sheet
		this.onSelect = selected
		this.onFollow = followed
		this.view = null
		this.rows = []
		this.follow = true
		this.selected = null // seq
		this.highlight = null // RegExp
		this.dropped = 0
		this.drawn = '' // what the rows show, to leave them alone while it stays
		this.measure()

		viewport.addEventListener('scroll', () => this.scrolled(), { passive: true })
		viewport.addEventListener('keydown', (e) => this.key(e))
		viewport.addEventListener('wheel', (e) => { if (e.deltaY < 0 && viewport.scrollTop > 0) this.setFollow(false) }, { passive: true })
		sheet.addEventListener('click', (e) => {
			const row = e.target.closest('.row')
			if (row && row.dataset.kind !== 'note') this.select(Number(row.dataset.seq))
		})
		new ResizeObserver(() => {
			this.measure()
			this.redraw()
		}).observe(viewport)
	}

	measure() {
		this.height = parseFloat(getComputedStyle(this.viewport).getPropertyValue('--row')) || 28
		this.visible = Math.ceil(this.viewport.clientHeight / this.height)
	}

	show(view, highlight) {
		this.view = view
		this.highlight = highlight
		this.dropped = view.dropped
		if (!this.follow && this.selected !== null) this.reveal(this.selected)
		this.redraw()
	}

	redraw() {
		this.drawn = ''
		this.draw()
	}

	setFollow(follow) {
		if (this.follow === follow) return
		this.follow = follow
		this.onFollow(follow)
		if (follow) this.draw()
	}

	get atEnd() {
		const v = this.viewport
		return v.scrollTop + v.clientHeight >= v.scrollHeight - this.height / 2
	}

	scrolled() {
		// Our own scrolling ends at the end; what does not is the user's.
		if (this.viewport.scrollTop !== this.scrolledTo) this.setFollow(this.atEnd)
		this.draw()
	}

	/** Brings the rows up to date with the view. Once a frame at most. */
	draw() {
		const { view, viewport } = this
		if (!view) return
		const count = view.length
		this.sheet.style.height = count * this.height + 'px'
		if (this.follow) {
			viewport.scrollTop = count * this.height
		} else if (view.dropped > this.dropped) {
			// What is read stays where it is while older rows disappear above.
			viewport.scrollTop -= (view.dropped - this.dropped) * this.height
		}
		this.dropped = view.dropped
		this.scrolledTo = viewport.scrollTop

		const first = Math.max(0, Math.floor(viewport.scrollTop / this.height) - overscan)
		const last = Math.min(count, first + this.visible + 2 * overscan)
		const drawn = `${first} ${last} ${view.at(first)?.seq} ${this.selected}`
		if (drawn === this.drawn) return
		this.drawn = drawn
		while (this.rows.length < last - first) this.rows.push(this.newRow())
		while (this.rows.length > last - first) this.rows.pop().row.remove()
		for (let i = first; i < last; i++) this.fill(this.rows[i - first], view.at(i), i)
		viewport.setAttribute('aria-rowcount', count)
		const active = this.rows.find((r) => r.seq === this.selected)
		if (active) viewport.setAttribute('aria-activedescendant', active.row.id)
		else viewport.removeAttribute('aria-activedescendant')
	}

	newRow() {
		const row = document.createElement('div')
		row.className = 'row'
		row.id = 'row-' + this.rows.length
		row.setAttribute('role', 'row')
		const cells = ['time', 'id', 'type', 'data'].map((name) => {
			const cell = document.createElement('span')
			cell.className = name
			cell.setAttribute('role', 'gridcell')
			row.append(cell)
			return cell
		})
		this.sheet.append(row)
		return { row, cells, seq: -1, highlight: null }
	}

	fill(r, item, index) {
		r.row.style.transform = `translateY(${index * this.height}px)`
		r.row.setAttribute('aria-rowindex', index + 1)
		r.row.setAttribute('aria-selected', item.seq === this.selected)
		if (r.seq === item.seq && r.highlight === this.highlight) return
		r.seq = item.seq
		r.highlight = this.highlight
		r.row.dataset.seq = item.seq
		r.row.dataset.kind = item.kind
		r.row.dataset.tone = item.tone ?? ''
		const [time, id, type, data] = r.cells
		time.textContent = clock(item.time)
		this.mark(id, item.hasID ? oneLine(item.id, null) : '')
		this.mark(type, describe(item))
		this.mark(data, oneLine(item.kind === 'block' ? blockText(item) : item.data, this.highlight))
	}

	/** Sets the text of a cell, with what is searched for marked. */
	mark(cell, text) {
		const regexp = this.highlight
		if (regexp === null || text === '') {
			cell.textContent = text
			return
		}
		cell.textContent = ''
		let from = 0
		for (const match of text.matchAll(new RegExp(regexp.source, 'gi'))) {
			const mark = document.createElement('mark')
			mark.textContent = match[0]
			cell.append(text.slice(from, match.index), mark)
			from = match.index + match[0].length
		}
		cell.append(text.slice(from))
	}

	select(seq) {
		this.selected = seq
		const item = seq === null ? null : this.view.store.at(seq)
		this.redraw()
		this.onSelect(item ?? null)
	}

	/** Selects the shown item that is so many rows away from the selected one. */
	move(by) {
		const { view } = this
		if (view.length === 0) return
		let index
		if (this.selected === null) {
			index = by > 0 ? Math.floor(this.viewport.scrollTop / this.height) : view.length - 1
		} else {
			index = view.indexOf(this.selected)
			if (by > 0 && view.at(index)?.seq !== this.selected) by--
			index += by
		}
		index = Math.max(0, Math.min(view.length - 1, index))
		// Notes have nothing more to show. At an end, the search turns round.
		for (const step of [Math.sign(by) || 1, -Math.sign(by) || -1]) {
			let i = index
			while (view.at(i)?.kind === 'note') i += step
			if (view.at(i)) {
				index = i
				break
			}
		}
		const item = view.at(index)
		this.setFollow(false)
		this.reveal(item.seq)
		this.select(item.seq)
	}

	reveal(seq) {
		const { viewport, height } = this
		const top = this.view.indexOf(seq) * height
		this.sheet.style.height = this.view.length * height + 'px'
		if (top < viewport.scrollTop) viewport.scrollTop = top
		else if (top + height > viewport.scrollTop + viewport.clientHeight) viewport.scrollTop = top + height - viewport.clientHeight
	}

	key(e) {
		if (e.ctrlKey || e.metaKey || e.altKey) return
		const page = Math.max(1, this.visible - 1)
		const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[e.key]
		if (by === undefined) return
		e.preventDefault()
		if (e.key === 'End') this.setFollow(true)
		else this.move(by)
	}
}

function blockText(item) {
	const parts = []
	if (item.type !== '') parts.push(`event: ${item.type}`)
	if (item.hasID) parts.push(item.id === '' ? 'the last event id is reset' : `last event id ${item.id}`)
	if (item.retry !== undefined) parts.push(`reconnection time ${item.retry} ms`)
	return parts.join(', ')
}
