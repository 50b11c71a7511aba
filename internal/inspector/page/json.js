// Sets JSON in lines, and leaves every token of it as it came: a number of
// twenty digits, a key that is there twice, 1.0 and "\u00e9" would not survive
// JSON.parse and JSON.stringify, and are what one looks for in a stream.

const token = /[\s]+|"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*|true|false|null|[{}[\]:,]/y

/** Whether text may be JSON that gains from being set in lines. */
export function looksLikeJSON(text) {
	const first = /^\s*(.)/.exec(text)?.[1]
	return first === '{' || first === '['
}

/**
 * Returns the tokens of text set in lines, as [class, text] pairs, or null if
 * text is not JSON.
 */
export function prettyJSON(text) {
	try {
		JSON.parse(text)
	} catch {
		return null
	}
	const out = []
	let depth = 0
	let previous = '' // punctuation that was last, or a value
	const breakLine = () => out.push(['', '\n' + '  '.repeat(Math.min(depth, 40))])
	token.lastIndex = 0
	while (token.lastIndex < text.length) {
		const match = token.exec(text)
		if (match === null) return null
		const t = match[0]
		const c = t[0]
		if (c === ' ' || c === '\n' || c === '\t' || c === '\r') continue
		if (c === '}' || c === ']') {
			depth--
			if (previous !== '{' && previous !== '[') breakLine()
			out.push(['', t])
		} else {
			if (previous === '{' || previous === '[' || previous === ',') breakLine()
			if (c === '{' || c === '[') {
				depth++
				out.push(['', t])
			} else if (c === ':') {
				const key = out[out.length - 1]
				key[0] = 'key'
				out.push(['', ': '])
			} else if (c === ',') {
				out.push(['', t])
			} else {
				out.push([c === '"' ? 'string' : c === 't' || c === 'f' || c === 'n' ? 'word' : 'number', t])
			}
		}
		previous = t
	}
	return out
}
