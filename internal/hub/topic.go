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

// Limits bound what a topic remembers. Each must be positive.
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

	// Beat counts the heartbeats of the topic so far (see Topic.Beat).
	Beat uint64

	// Wake is closed when there may be more to see. It is set only if there
	// is nothing to take.
	Wake <-chan struct{}

	// Since is when the first entry of Bytes was published.
	Since time.Time
}

// A Topic is the fan-out point of one stream. All methods may be called from
// any goroutine.
type Topic struct {
	start time.Time // what the log counts time from

	mu sync.RWMutex

	// Guarded by mu.
	log  log
	beat uint64
	wake chan struct{}
	pace pace // of waking those who wait on it

	// Replaced under mu, never modified, and read without it.
	listeners atomic.Pointer[[]*listener]
}

// New returns an empty topic.
func New(limits Limits) *Topic {
	return &Topic{
		start: time.Now(),
		log:   newLog(limits),
		wake:  make(chan struct{}),
	}
}

// NewAfter returns an empty topic whose stream begins just after id: a reader that
// resumes with it has missed nothing. Nothing else but an entry puts an id in force.
func NewAfter(id string, limits Limits) *Topic {
	t := New(limits)
	t.log.startAfter(id)
	return t
}

// now is the time as the log has it. It is always read before locking.
func (t *Topic) now() time.Duration {
	return time.Since(t.start)
}

// Publish appends entries and wakes the readers, who are many at a pace that they
// can keep. It never waits for them.
func (t *Topic) Publish(entries ...Entry) {
	now := t.now()
	t.mu.Lock()
	for i := range entries {
		t.log.append(&entries[i], now)
	}
	wake := t.takeWake(now)
	t.mu.Unlock()
	t.release(wake)
}

// Append adds one entry without waking anybody. It is for a publisher that
// has more at hand and calls Wake when it has added all.
func (t *Topic) Append(e Entry) {
	now := t.now()
	t.mu.Lock()
	t.log.append(&e, now)
	t.mu.Unlock()
}

// Drop forgets all entries, as if they had grown too old: a reader that has not come to
// the end lags.
func (t *Topic) Drop() {
	t.mu.Lock()
	t.log.drop()
	t.mu.Unlock()
	t.Wake()
}

// Read returns what a reader at cursor c gets: a run of entries, or the news
// that it lags, or a channel to wait on. It never blocks. had is the channel that
// the reader got last, if any: it may look again without having been woken.
func (t *Topic) Read(c Cursor, had <-chan struct{}) Batch {
	t.mu.RLock()
	defer t.mu.RUnlock()
	batch := t.read(c)
	if len(batch.Bytes) == 0 && !batch.Gap && !batch.Lagged {
		batch.Wake = t.wait(had)
	}
	return batch
}

// Look is Read for whoever listens, who needs no channel to wait on.
func (t *Topic) Look(c Cursor) Batch {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.read(c)
}

// LookUntil is Look for entries in front of a cursor: those at limit and behind it are left
// for later.
func (t *Topic) LookUntil(c, limit Cursor) Batch {
	t.mu.RLock()
	defer t.mu.RUnlock()
	batch := t.read(min(c, limit))
	if batch.Next > limit {
		batch.Bytes, batch.Next = t.log.runUntil(c, limit), limit
	}
	return batch
}

func (t *Topic) read(c Cursor) Batch {
	batch := Batch{Next: c, Beat: t.beat}
	switch {
	case c < t.log.tail:
		batch.Lagged = true
	case c < t.log.head:
		e := t.log.at(c)
		if batch.Gap = e.gap; e.gap {
			batch.Next = c + 1
		} else {
			batch.Bytes, batch.Next = t.log.run(c)
		}
		batch.Since = t.start.Add(e.time)
	}
	return batch
}

// Entry returns the entry at cursor c, if the log has it. Its bytes are shared: they are
// never to be modified.
func (t *Topic) Entry(c Cursor) (Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if c < t.log.tail || c >= t.log.head {
		return Entry{}, false
	}
	e := t.log.at(c)
	entry := Entry{SetsID: e.setsID, Aside: e.aside, Gap: e.gap}
	if e.setsID {
		entry.ID = e.id
	}
	if !e.gap {
		entry.Wire = t.log.wire(e)
	}
	return entry, true
}

// Expire drops entries that have reached their age. Publishing does so by
// itself, and so does finding a position to begin at; a quiet topic gives its
// memory back only through this. It reports when the oldest entry left will be
// due, or false if none is left.
func (t *Topic) Expire() (next time.Time, ok bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	due, ok := t.log.due()
	if !ok {
		return time.Time{}, false
	}
	return t.start.Add(due), true
}
