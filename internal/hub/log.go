package hub

import (
	"sync"
	"sync/atomic"
	"time"
)

// An Entry is one event in wire form.
type Entry struct {
	// Wire is never empty, but for a gap. It is copied by Publish; the caller may reuse it.
	Wire []byte

	// ID is the id that this entry sets, if SetsID. An entry that sets the
	// empty id puts no id in force.
	ID     string
	SetsID bool

	// Gap says that events may be missing at this place. Such an entry has no Wire:
	// each reader has words of its own for it.
	Gap bool

	// Aside says that the entry is no event, as a reconnection time alone is
	// none: it sets no id, and does not part the events around it.
	Aside bool
}

// Limits bound what a log keeps. Each must be positive.
type Limits struct {
	// Events is how many of the newest entries can be replayed.
	Events int

	// Bytes bounds the wire bytes of all entries kept, but for one entry of more than
	// half of that: the newest such entry is kept beside the others, however large,
	// so that readers can have it, and what follows. The memory held for them is at
	// most an eighth more and twice 64 KiB, and what Go rounds an allocation up by.
	// What the log knows of each entry takes 100 to 300 bytes beside it.
	Bytes int

	// Age is how long an entry is kept.
	Age time.Duration
}

// A Batch is what a reader gets at its cursor.
type Batch struct {
	// Bytes are whole entries in wire form: shared, never to be modified. They
	// stay valid, and in memory, for as long as the reader holds them: 64 KiB
	// or one entry.
	Bytes []byte

	// Next is the reader's cursor once it has taken Bytes.
	Next Cursor

	// Lagged says that the log no longer has the entry at the cursor.
	Lagged bool

	// Gap says that the entry at the cursor is a gap. Then there are no Bytes.
	Gap bool

	// Beat counts the heartbeats of the log so far (see Log.Beat).
	Beat uint64

	// Wake is closed when there may be more to see. It is set only if there
	// is nothing to take.
	Wake <-chan struct{}

	// Since is when the first entry of Bytes was published.
	Since time.Time
}

// A Log is the fan-out point of one stream. All methods may be called from
// any goroutine.
type Log struct {
	start time.Time // what the log counts time from

	mu sync.RWMutex

	// Guarded by mu.
	ring ring
	beat uint64
	wake chan struct{}
	pace pace // of waking those who wait on it

	// Replaced under mu, never modified, and read without it.
	listeners atomic.Pointer[[]*listener]
}

// New returns an empty log.
func New(limits Limits) *Log {
	return &Log{
		start: time.Now(),
		ring:  newRing(limits),
		wake:  make(chan struct{}),
	}
}

// NewAfter returns an empty log whose stream begins just after id: a reader that
// resumes with it has missed nothing. Nothing else but an entry puts an id in force.
func NewAfter(id string, limits Limits) *Log {
	l := New(limits)
	l.ring.startAfter(id)
	return l
}

// now is the time as the log has it. It is always read before locking.
func (l *Log) now() time.Duration {
	return time.Since(l.start)
}

// Publish appends entries and wakes the readers, who are many at a pace that they
// can keep. It never waits for them.
func (l *Log) Publish(entries ...Entry) {
	now := l.now()
	l.mu.Lock()
	for i := range entries {
		l.ring.append(&entries[i], now)
	}
	wake := l.takeWake(now)
	l.mu.Unlock()
	l.release(wake)
}

// Append adds one entry without waking anybody. It is for a publisher that
// has more at hand and calls Wake when it has added all.
func (l *Log) Append(e Entry) {
	now := l.now()
	l.mu.Lock()
	l.ring.append(&e, now)
	l.mu.Unlock()
}

// Drop forgets all entries, as if they had grown too old: a reader that has not come to
// the end lags.
func (l *Log) Drop() {
	l.mu.Lock()
	l.ring.drop()
	l.mu.Unlock()
	l.Wake()
}

// Read returns what a reader at cursor c gets: a run of entries, or the news
// that it lags, or a channel to wait on. It never blocks. had is the channel that
// the reader got last, if any: it may look again without having been woken.
func (l *Log) Read(c Cursor, had <-chan struct{}) Batch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	batch := l.read(c)
	if len(batch.Bytes) == 0 && !batch.Gap && !batch.Lagged {
		batch.Wake = l.wait(had)
	}
	return batch
}

// Look is Read for whoever listens, who needs no channel to wait on.
func (l *Log) Look(c Cursor) Batch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.read(c)
}

// LookUntil is Look for entries in front of a cursor: those at limit and behind it are left
// for later.
func (l *Log) LookUntil(c, limit Cursor) Batch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	batch := l.read(min(c, limit))
	if batch.Next > limit {
		batch.Bytes, batch.Next = l.ring.runUntil(c, limit), limit
	}
	return batch
}

func (l *Log) read(c Cursor) Batch {
	batch := Batch{Next: c, Beat: l.beat}
	switch {
	case c < l.ring.tail:
		batch.Lagged = true
	case c < l.ring.head:
		e := l.ring.at(c)
		if batch.Gap = e.gap; e.gap {
			batch.Next = c + 1
		} else {
			batch.Bytes, batch.Next = l.ring.run(c)
		}
		batch.Since = l.start.Add(e.time)
	}
	return batch
}

// Entry returns the entry at cursor c, if the log has it. Its bytes are shared: they are
// never to be modified.
func (l *Log) Entry(c Cursor) (Entry, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if c < l.ring.tail || c >= l.ring.head {
		return Entry{}, false
	}
	e := l.ring.at(c)
	entry := Entry{SetsID: e.setsID, Aside: e.aside, Gap: e.gap}
	if e.setsID {
		entry.ID = e.id
	}
	if !e.gap {
		entry.Wire = l.ring.wire(e)
	}
	return entry, true
}

// Expire drops entries that have reached their age. Publishing does so by
// itself, and so does finding a position to begin at; a quiet log gives its
// memory back only through this. It reports when the oldest entry left will be
// due, or false if none is left.
func (l *Log) Expire() (next time.Time, ok bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.expire(now)
	due, ok := l.ring.due()
	if !ok {
		return time.Time{}, false
	}
	return l.start.Add(due), true
}
