package ssefanout

import (
	"hash/maphash"
	"sync"
	"time"
)

// maxPassMemory is how many keys a passMemory knows, at most.
const maxPassMemory = 10000

// A passMemory knows the keys whose requests pass one to one, and why, so that
// they do so at once. The zero value is ready to use.
//
// Keys are kept as hashes, since a key is as long as a client likes. Two keys
// that share a hash do no harm: requests for either pass.
//
// Two generations bound the memory without a walk through it: the younger one
// replaces the older one when it has half of all that is allowed.
type passMemory struct {
	mu sync.Mutex

	// Guarded by mu.
	young, old map[uint64]rememberedPass
}

type rememberedPass struct {
	why   passReason
	until time.Time
}

var passMemorySeed = maphash.MakeSeed()

// remember makes the requests for a key pass for a while.
func (m *passMemory) remember(key string, why passReason, d time.Duration) {
	digest := maphash.String(passMemorySeed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= maxPassMemory/2 {
		m.young, m.old = nil, m.young
	}
	if m.young == nil {
		m.young = make(map[uint64]rememberedPass)
	}
	m.young[digest] = rememberedPass{why, time.Now().Add(d)}
}

// recall returns why the requests for a key pass, or "" if they need not.
func (m *passMemory) recall(key string) passReason {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young)+len(m.old) == 0 {
		return ""
	}
	digest := maphash.String(passMemorySeed, key)
	for _, generation := range []map[uint64]rememberedPass{m.young, m.old} {
		known, ok := generation[digest]
		switch {
		case !ok:
		case time.Now().Before(known.until):
			return known.why
		default:
			delete(generation, digest)
		}
	}
	return ""
}
