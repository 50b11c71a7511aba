package observe

import (
	"sync"
	"time"
)

// Notices bound what the log says of things that may come with every request.
// Whoever asks writes the line, if it is to be written. The zero value is ready
// to use.
type Notices struct {
	mu sync.Mutex

	// Guarded by mu.
	given map[notice]given
	named int // notices with a name
}

// A notice is about something, whose type tells it from all else, and about one of
// several that have names, if it has one.
type notice struct {
	about any
	name  string
}

type given struct {
	next    time.Time // when there may be another line, if ever
	counted uint64    // since the last one
}

// Names are often the clients' choice: they must not fill the log, nor memory.
const (
	// MaxNotices is how many notices with a name are given.
	MaxNotices = 20

	maxNoticeName = 100
)

// noticePause is how long a notice that is counted is not given again.
const noticePause = time.Minute

// Once reports whether a notice was not given yet, and is to be given now.
func (n *Notices) Once(about any, name string) bool {
	if len(name) > maxNoticeName {
		return false
	}
	key := notice{about, name}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.given[key]; ok || name != "" && n.named >= MaxNotices {
		return false
	}
	if name != "" {
		n.named++
	}
	n.give(key, given{})
	return true
}

// Count adds to a notice, and reports whether it is to be given now, and how much was
// added since it last was. There is at most one line a minute, and none is delayed.
func (n *Notices) Count(about any, more uint64) (since uint64, due bool) {
	key, now := notice{about: about}, time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	g := n.given[key]
	since = g.counted + more
	if now.Before(g.next) {
		n.give(key, given{g.next, since})
		return 0, false
	}
	n.give(key, given{next: now.Add(noticePause)})
	return since, true
}

// give keeps what is known of a notice. n.mu must be held.
func (n *Notices) give(key notice, g given) {
	if n.given == nil {
		n.given = make(map[notice]given)
	}
	n.given[key] = g
}
