// Copying, and the word of what was copied.

import { $, set } from './dom.js'

export async function copy(text, what) {
	try {
		if (navigator.clipboard) {
			await navigator.clipboard.writeText(text)
		} else {
			// Plain http, other than localhost: browsers offer only the old way.
			const area = document.createElement('textarea')
			area.value = text
			area.className = 'hidden'
			document.body.append(area)
			area.select()
			const copied = document.execCommand('copy')
			area.remove()
			if (!copied) throw new Error('refused')
		}
		toast(`Copied ${what}`)
	} catch {
		toast('The browser has not allowed copying')
	}
}

let toastTimer
function toast(text) {
	set('toast', text)
	$('toast').hidden = false
	clearTimeout(toastTimer)
	toastTimer = setTimeout(() => { $('toast').hidden = true }, 1800)
}
