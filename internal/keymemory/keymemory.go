// Package keymemory remembers what is known of keys, for a while and within bounds.
package keymemory

import (
	"hash/maphash"
	"sync"
	"time"
)

// maxKeys is how many keys a Memory knows, at most.
const maxKeys = 10000

// A Memory knows something about the keys of topics, for a while. The zero
// value is ready to use.
//
// Keys are kept as hashes, since a key is as long as a client likes. What is
// known must do no harm to another key that has the same hash.
//
// Two generations bound the memory without a walk through it: the younger one
// replaces the older one when it has half of all that is allowed.
type Memory[T any] struct {
	mu sync.Mutex

	// Guarded by mu.
	young, old map[uint64]remembered[T]
}

type remembered[T any] struct {
	what  T
	until time.Time
}

var seed = maphash.MakeSeed()

// Remember keeps what is known about a key for d.
func (m *Memory[T]) Remember(key string, what T, d time.Duration) {
	m.Update(key, d, func(T) T { return what })
}

// Update replaces what is known about a key, the zero value if that is nothing,
// and keeps it for d.
func (m *Memory[T]) Update(key string, d time.Duration, change func(T) T) {
	digest := maphash.String(seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.find(digest)
	if len(m.young) >= maxKeys/2 {
		m.young, m.old = nil, m.young
	}
	if m.young == nil {
		m.young = make(map[uint64]remembered[T])
	}
	m.young[digest] = remembered[T]{change(before), time.Now().Add(d)}
}

// Recall returns what is known about a key, the zero value if that is nothing.
func (m *Memory[T]) Recall(key string) (what T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young)+len(m.old) == 0 {
		return what
	}
	return m.find(maphash.String(seed, key))
}

// Empty reports whether nothing is known about any key.
func (m *Memory[T]) Empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.young)+len(m.old) == 0
}

// find is recall for the key with a hash. m.mu must be held.
func (m *Memory[T]) find(digest uint64) (what T) {
	for _, generation := range []map[uint64]remembered[T]{m.young, m.old} {
		found, ok := generation[digest]
		switch {
		case !ok:
		case time.Now().Before(found.until):
			return found.what
		default:
			delete(generation, digest)
		}
	}
	return what
}
