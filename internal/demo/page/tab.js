// One of ten tabs: two streams, and no connection of its own.
import { EventSource } from './streams/client.js'

const $ = (id) => document.getElementById(id)

const sentences = new EventSource('events/sentences')
sentences.onmessage = (e) => {
	$('id').textContent = e.lastEventId
	$('text').textContent = e.data
}
sentences.onerror = () => document.body.classList.add('away')
sentences.onopen = () => document.body.classList.remove('away')

new EventSource('events/clock').onmessage = (e) => { $('clock').textContent = e.data }
