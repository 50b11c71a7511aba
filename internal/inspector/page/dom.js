// The page's elements, by their ids.

export const $ = (id) => document.getElementById(id)

/** Sets a text, if it is another one: this goes on sixty times a second. */
export function set(id, text) {
	const element = $(id)
	if (element.textContent !== text) element.textContent = text
}

/** Fills a list of names and what belongs to each. */
export function setPairs(id, pairs) {
	const target = $(id)
	target.textContent = ''
	for (const [name, value] of pairs) {
		const dt = document.createElement('dt')
		dt.textContent = name
		const dd = document.createElement('dd')
		dd.textContent = value
		target.append(dt, dd)
	}
}
