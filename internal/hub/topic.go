package hub

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Cursor is the sequence number of the entry that a reader will get next.
// The first entry of a topic has sequence number 0.
type Cursor uint64

// A Position is a place between two entries: a cursor, and the id in force
// just before the entry that the cursor names.
type Position struct {
	Cursor Cursor

	// ID is the id a client standing here would resume with. It is empty when
	// no id is in force.
	ID string
}

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

// A listener is called in place of a channel that is closed.
type listener struct{ call func() }

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

// Wake makes every waiting reader look again. It may be for a reason of the
// caller's own: a reader that looks for it after Read has returned the channel
// to wait on, and before it waits, does not miss it.
func (t *Topic) Wake() {
	var wake chan struct{}
	if t.pace.waiting.Load() > 0 {
		now := t.now()
		t.mu.Lock()
		wake = t.takeWake(now)
		t.mu.Unlock()
	}
	t.release(wake)
}

// Beat counts a heartbeat and wakes the readers. One timer for a topic serves
// all of its readers: each compares Batch.Beat with the last it saw.
func (t *Topic) Beat() {
	now := t.now()
	t.mu.Lock()
	t.beat++
	wake := t.takeWake(now)
	t.mu.Unlock()
	t.release(wake)
}

// Listen makes call be called at each Publish, Wake and Beat from now on, until
// stop is called, which does not wait for a call under way. It is for whoever
// reads for many: call must not block, nor take long.
func (t *Topic) Listen(call func()) (stop func()) {
	l := &listener{call}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []*listener{l}
	if before := t.listeners.Load(); before != nil {
		all = append(all, *before...)
	}
	t.listeners.Store(&all)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(*t.listeners.Load()), func(other *listener) bool { return other == l })
		t.listeners.Store(&rest)
	}
}

// takeWake returns the channel that readers wait on, and leaves a new one in its
// place. It returns nil if none waits, so that a topic without readers makes no
// channels, or if they are to be woken later. t.mu must be held for writing.
func (t *Topic) takeWake(now time.Duration) chan struct{} {
	n := t.pace.waiting.Load()
	if n == 0 {
		return nil
	}
	if left := t.pace.left(now); left > 0 {
		t.wakeIn(left)
		return nil
	}
	return t.renewWake(n, now)
}

// renewWake is takeWake for n readers. t.mu must be held for writing.
func (t *Topic) renewWake(n int64, now time.Duration) chan struct{} {
	t.pace.wake(n, now)
	wake := t.wake
	t.wake = make(chan struct{})
	return wake
}

// release is called without the lock: closing the channel makes each waiting
// goroutine runnable, which takes a while when there are many.
func (t *Topic) release(wake chan struct{}) {
	if wake != nil {
		close(wake)
	}
	if listeners := t.listeners.Load(); listeners != nil {
		for _, l := range *listeners {
			l.call()
		}
	}
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

// Watch returns a channel that is closed at the next Publish, Wake or Beat, and
// the heartbeats so far. It is for readers that have no cursor yet; had is as for
// Read.
func (t *Topic) Watch(had <-chan struct{}) (wake <-chan struct{}, beat uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.wait(had), t.beat
}

// wait returns the channel to wait on. t.mu must be held, for the reader must be
// counted under the same lock that showed that there is nothing to take, and once: a
// crowd of more than there are would be waited for in vain.
func (t *Topic) wait(had <-chan struct{}) <-chan struct{} {
	if had != t.wake && t.pace.wait() {
		t.lapEnds()
	}
	return t.wake
}

// At returns the position at cursor c. It reports false if the log has passed
// it, or is not there yet.
func (t *Topic) At(c Cursor) (Position, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if c < t.log.tail || c > t.log.head {
		return Position{}, false
	}
	return t.log.position(c), true
}

// Newest returns the position after the newest entry: live.
func (t *Topic) Newest() Position {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.log.position(t.log.head)
}

// Oldest returns the position before the oldest entry that can be replayed.
func (t *Topic) Oldest() Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	return t.log.position(t.log.oldest())
}

// Last returns the position before the newest n entries, or before the oldest
// if there are fewer.
func (t *Topic) Last(n int) Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	from := t.log.oldest()
	if have := uint64(t.log.head - from); uint64(n) < have {
		from = t.log.head - Cursor(n)
	}
	return t.log.position(from)
}

// After returns the position just after the newest entry that set id. It
// reports false if no entry that can be replayed, nor the position before the
// oldest of them, has this id.
func (t *Topic) After(id string) (Position, bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	c, ok := t.log.after(id)
	return Position{Cursor: c, ID: id}, ok
}

// KeptAfter is After for all entries that are kept, also those that can no longer be
// replayed.
func (t *Topic) KeptAfter(id string) (Position, bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	c, ok := t.log.keptAfter(id)
	return Position{Cursor: c, ID: id}, ok
}

// FirstAfter returns the position just after the oldest entry that can be replayed and
// has set id. It looks through all of them.
func (t *Topic) FirstAfter(id string) (Position, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c := t.log.oldest(); c < t.log.head; c++ {
		if e := t.log.at(c); e.setsID && e.id == id {
			return Position{Cursor: c + 1, ID: id}, true
		}
	}
	return Position{}, false
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

// Tail returns the position before the oldest entry that is kept.
func (t *Topic) Tail() Position {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.expire(now)
	return t.log.position(t.log.tail)
}

// FirstID returns the first id that an entry has set, from cursor c on. It is empty
// if none has.
func (t *Topic) FirstID(c Cursor) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for c = max(c, t.log.tail); c < t.log.head; c++ {
		if e := t.log.at(c); e.setsID && e.id != "" {
			return e.id
		}
	}
	return ""
}

// Match reports whether an entry equal to e, in id and bytes, is in the log at
// or after from, and returns the position after it. It looks at from itself,
// past what is no event, and at the newest entry that set the id of e: an entry
// that sets none can only be matched at from.
func (t *Topic) Match(from Cursor, e Entry) (Cursor, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.log.match(from, &e)
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

// Stats are figures of a topic at one moment.
type Stats struct {
	// Published counts all entries ever published.
	Published uint64
	// Entries and Bytes are what the log holds.
	Entries int
	Bytes   int
	// Oldest and Newest are the times of the ends of the log, zero if it is
	// empty.
	Oldest, Newest time.Time
	// ID is the id in force.
	ID string
	// Rate is how many entries came per second lately: over the last ten
	// seconds, or as many of them as the log reaches back.
	Rate float64
}

// Stats returns figures of the topic.
func (t *Topic) Stats() Stats {
	now := t.now()
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := &t.log
	s := Stats{
		Published: uint64(l.head),
		Entries:   int(l.head - l.tail),
		Bytes:     l.bytes,
		ID:        l.id,
		Rate:      l.rate(now),
	}
	if s.Entries > 0 {
		s.Oldest = t.start.Add(l.at(l.tail).time)
		s.Newest = t.start.Add(l.at(l.head - 1).time)
	}
	return s
}
