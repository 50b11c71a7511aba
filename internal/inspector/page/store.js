// What was received, within bounds, and what of it is shown.

/**
 * The newest items of a stream: at most so many, of at most so many characters.
 * Each has a sequence number, seq, which is where it is found.
 */
export class Store {
	constructor(items, size) {
		this.capacity = items
		this.maxSize = size
		this.ring = new Array(items)
		this.first = 0 // seq of the oldest
		this.next = 0 // seq of the one to come
		this.size = 0
	}

	add(item) {
		item.seq = this.next
		item.size = weigh(item)
		this.size += item.size
		while (this.next - this.first >= this.capacity || (this.size > this.maxSize && this.first < this.next)) this.drop()
		this.ring[this.next % this.capacity] = item
		this.next++
	}

	drop() {
		const at = this.first % this.capacity
		this.size -= this.ring[at].size
		this.ring[at] = undefined
		this.first++
	}

	at(seq) {
		return seq >= this.first && seq < this.next ? this.ring[seq % this.capacity] : undefined
	}

	clear() {
		this.ring.fill(undefined)
		this.first = this.next
		this.size = 0
	}

	/** A store of its own with the same items: what a pause holds on to. */
	copy() {
		const c = new Store(0, this.maxSize)
		Object.assign(c, this, { ring: this.ring.slice() })
		return c
	}
}

function weigh(item) {
	return 100 + item.data.length + (item.id?.length ?? 0) + (item.type?.length ?? 0)
}

/**
 * What of a store is shown: the items that a test lets through, or all. It
 * follows the store when it is told to, so that a search through ten thousand
 * items, or sixty million characters, takes a little of each frame.
 */
export class View {
	constructor(store, test = null) {
		this.store = store
		this.test = test
		this.found = [] // seqs, from head on
		this.head = 0
		this.scanned = store.first
		this.dropped = 0 // items that were shown and are not kept any more
		this.first = store.first
	}

	/** Takes note of what has come and gone. Returns false if there is more to look at. */
	follow(until = Infinity) {
		const { store } = this
		if (this.test === null) {
			this.dropped += store.first - this.first
			this.first = store.first
			return true
		}
		while (this.head < this.found.length && this.found[this.head] < store.first) {
			this.head++
			this.dropped++
		}
		if (this.head > 4096 && this.head * 2 > this.found.length) {
			this.found = this.found.slice(this.head)
			this.head = 0
		}
		this.scanned = Math.max(this.scanned, store.first)
		for (let n = 1; this.scanned < store.next; n++) {
			const item = store.at(this.scanned)
			if (this.test(item)) this.found.push(item.seq)
			this.scanned++
			// The clock costs more than most tests do; a large item is worth a look.
			if ((n % 64 === 0 || item.size > 4096) && performance.now() > until) return this.scanned === store.next
		}
		return true
	}

	get length() {
		return this.test === null ? this.store.next - this.store.first : this.found.length - this.head
	}

	at(index) {
		return this.store.at(this.test === null ? this.store.first + index : this.found[this.head + index])
	}

	/** The index of the first shown item that is not older than seq. */
	indexOf(seq) {
		if (this.test === null) return Math.max(0, Math.min(this.length, seq - this.store.first))
		let low = this.head
		let high = this.found.length
		while (low < high) {
			const middle = (low + high) >> 1
			if (this.found[middle] < seq) low = middle + 1
			else high = middle
		}
		return low - this.head
	}
}
