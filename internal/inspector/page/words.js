// How times, sizes and events are put into words.

const pad = (n, width) => String(n).padStart(width, '0')

/** A time of day with milliseconds, as short as it can be. */
export function clock(ms) {
	const d = new Date(ms)
	return `${pad(d.getHours(), 2)}:${pad(d.getMinutes(), 2)}:${pad(d.getSeconds(), 2)}.${pad(d.getMilliseconds(), 3)}`
}

export function bytes(n) {
	if (n < 1024) return `${n} B`
	if (n < 1024 * 1024) return `${(n / 1024).toFixed(n < 10240 ? 1 : 0)} KiB`
	if (n < 1024 * 1024 * 1024) return `${(n / 1048576).toFixed(n < 10485760 ? 1 : 0)} MiB`
	return `${(n / 1073741824).toFixed(1)} GiB`
}

const grouped = new Intl.NumberFormat('en')
export const count = (n) => grouped.format(n)

/** Events a second: to a tenth where that says something. */
export function rate(n) {
	return n === 0 ? '0' : n < 9.95 ? n.toFixed(1) : count(Math.round(n))
}

export function duration(ms) {
	if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`
	const s = ms / 1000
	if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`
	if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
	return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

/** What stands in the column of the event type. */
export function describe(item) {
	switch (item.kind) {
	case 'event': return item.type === '' ? 'message' : item.type
	case 'comment': return 'comment'
	case 'ignored': return 'ignored'
	case 'block': return 'no data'
	default: return ''
	}
}

/**
 * The beginning of a text in one line, or what stands around the first match:
 * more is not to be seen in a row.
 */
export function oneLine(text, regexp) {
	const width = 400
	let from = 0
	if (regexp !== null && text.length > 80) {
		const at = text.search(regexp)
		if (at > 60) from = at - 30
	}
	const part = text.slice(from, from + width).replace(/[\s\0]+/g, ' ')
	return (from > 0 ? '…' : '') + part + (from + width < text.length ? '…' : '')
}

/** An item as it came over the wire. */
export function asWire(item) {
	const lines = []
	switch (item.kind) {
	case 'comment':
		return `: ${item.data}`
	case 'ignored':
		return item.data
	case 'note':
		return ''
	}
	if (item.hasID) lines.push(`id: ${item.id}`)
	if (item.type !== '') lines.push(`event: ${item.type}`)
	if (item.retry !== undefined) lines.push(`retry: ${item.retry}`)
	if (item.kind === 'event') for (const line of item.data.split('\n')) lines.push(`data: ${line}`)
	return lines.join('\n') + '\n'
}

/** A word for a shell, quoted if it has to be. */
export function shellWord(text) {
	return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
