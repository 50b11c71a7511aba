package hub

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// A model does what a log does, with a slice and loops.
type model struct {
	limits     Limits
	kept       []modelEntry
	bytes      int
	published  int
	id, before string
	exact      bool
}

type modelEntry struct {
	Entry
	after string // the id in force
	at    time.Time
}

func (m *model) startAfter(id string) {
	m.id, m.before, m.exact = id, id, id != ""
}

func (m *model) publish(e Entry) {
	if e.SetsID {
		m.id = e.ID
	}
	e.Wire = bytes.Clone(e.Wire)
	m.kept = append(m.kept, modelEntry{e, m.id, time.Now()})
	m.bytes += len(e.Wire)
	m.published++
	m.expire()
	for m.full() {
		m.drop()
	}
}

func (m *model) full() bool {
	n := len(m.kept)
	small, giants := m.small()
	return n > max(m.limits.Events, 16384) || giants > 1 || small > m.limits.Bytes ||
		n > max(m.limits.Events, 1024) && time.Since(m.kept[0].at) >= 2*time.Second
}

// small returns the bytes of the entries that are not large beside the bound, and how many
// others there are.
func (m *model) small() (bytes, giants int) {
	for _, e := range m.kept {
		if n := len(e.Wire); n > m.limits.Bytes/2 {
			giants++
		} else {
			bytes += n
		}
	}
	return bytes, giants
}

func (m *model) expire() {
	for len(m.kept) > 0 && time.Since(m.kept[0].at) >= m.limits.Age {
		m.drop()
	}
}

func (m *model) drop() {
	e := m.kept[0]
	if !e.Aside {
		m.before, m.exact = e.after, e.SetsID && e.ID != ""
	}
	m.bytes -= len(e.Wire)
	m.kept = m.kept[1:]
}

func (m *model) head() Cursor { return Cursor(m.published) }
func (m *model) tail() Cursor { return Cursor(m.published - len(m.kept)) }
func (m *model) oldest() Cursor {
	return max(m.tail(), m.head()-min(m.head(), Cursor(m.limits.Events)))
}

func (m *model) entry(c Cursor) *modelEntry { return &m.kept[c-m.tail()] }

func (m *model) at(c Cursor) (Position, bool) {
	switch {
	case c < m.tail() || c > m.head():
		return Position{}, false
	case c == m.head():
		return Position{c, m.id}, true
	case c == m.tail():
		return Position{c, m.before}, true
	default:
		return Position{c, m.entry(c - 1).after}, true
	}
}

func (m *model) last(n int) Position {
	p, _ := m.at(max(m.oldest(), m.head()-min(m.head(), Cursor(n))))
	return p
}

// newest returns the newest entry that set id.
func (m *model) newest(id string) (Cursor, bool) {
	for c := m.head(); c > m.tail(); c-- {
		if e := m.entry(c - 1); e.SetsID && e.ID == id {
			return c - 1, true
		}
	}
	return 0, false
}

func (m *model) after(id string) (Position, bool) {
	p, ok := m.keptAfter(id)
	if !ok || p.Cursor < m.oldest() {
		return Position{}, false
	}
	return p, true
}

func (m *model) keptAfter(id string) (Position, bool) {
	if id == "" {
		return Position{}, false
	}
	if c, ok := m.newest(id); ok {
		return Position{c + 1, id}, true
	}
	if m.exact && id == m.before {
		return Position{m.tail(), id}, true
	}
	return Position{}, false
}

func (m *model) firstID(c Cursor) string {
	for ; c < m.head(); c++ {
		if e := m.entry(c); e.SetsID && e.ID != "" {
			return e.ID
		}
	}
	return ""
}

func (m *model) match(from Cursor, e Entry) (Cursor, bool) {
	equal := func(c Cursor) bool {
		if c < m.tail() || c >= m.head() {
			return false
		}
		have := m.entry(c)
		return bytes.Equal(have.Wire, e.Wire) && have.SetsID == e.SetsID && have.ID == e.ID
	}
	for c := from; c >= m.tail() && c < m.head(); c++ {
		if equal(c) {
			return c + 1, true
		}
		if e.Aside || !m.entry(c).Aside {
			break
		}
	}
	if e.SetsID && e.ID != "" {
		if c, ok := m.newest(e.ID); ok && c >= from && equal(c) {
			return c + 1, true
		}
	}
	return from, false
}

// has reports whether b are the bytes of the entries in [from, to).
func (m *model) has(b []byte, from, to Cursor) bool {
	for c := from; c < to; c++ {
		wire := m.entry(c).Wire
		if !bytes.HasPrefix(b, wire) {
			return false
		}
		b = b[len(wire):]
	}
	return len(b) == 0
}

// A rehearsal does the same to a log and to its model.
type rehearsal struct {
	t     *testing.T
	log   *Log
	model *model
	ids   int
	held  []heldBatch
}

// A heldBatch is what a slow reader holds while the log goes on.
type heldBatch struct{ bytes, want []byte }

// rehearse takes its steps from script, until that ends.
func rehearse(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		n := script[0]
		script = script[1:]
		return int(n)
	}
	one := func(of ...int) int { return of[next()%len(of)] }
	limits := Limits{
		Events: one(1, 2, 10, 1500),
		Bytes:  one(1, 100, 5000, 50_000, 300_000),
		Age:    time.Duration(one(1, 60, 3600)) * time.Second,
	}
	start := sometimesID(one(0, 1, 2))
	r := &rehearsal{t: t, log: NewAfter(start, limits), model: &model{limits: limits}}
	r.model.startAfter(start)
	r.check()
	for len(script) > 0 {
		switch next() % 10 {
		case 0, 1:
			r.publish(r.entry(next(), next()))
		case 2:
			e := r.entry(next(), next())
			r.log.Append(e)
			r.model.publish(e)
		case 3:
			entries := make([]Entry, next()%20)
			for i := range entries {
				entries[i] = r.entry(next(), next())
				r.model.publish(entries[i])
			}
			r.log.Publish(entries...)
		case 4: // many small ones
			for range next() * 4 {
				r.publish(r.entry(next(), 1))
			}
		case 5: // larger than a segment
			r.publish(r.entry(next(), 1000+next()))
		case 6:
			time.Sleep(time.Duration(one(1, 500, 1000, 30_000, 3_600_000)) * time.Millisecond)
		case 7:
			r.expire()
		case 8:
			r.hold(next())
		case 9:
			if next() < 64 {
				r.drop()
			}
		}
		r.check()
	}
	for _, h := range r.held {
		if !bytes.Equal(h.bytes, h.want) {
			t.Error("bytes that a reader holds have changed")
		}
	}
}

func sometimesID(n int) string {
	if n == 0 {
		return ""
	}
	return "id" + strconv.Itoa(n)
}

// entry makes one that can be told from others, unless a replay is meant.
func (r *rehearsal) entry(kind, size int) Entry {
	number := r.model.published
	e := Entry{}
	switch kind % 8 {
	case 0:
		if kind < 32 {
			return Entry{Gap: true}
		}
	case 1:
		e.Aside = kind < 128
	case 2: // resets the id
		e.SetsID = true
	case 3, 4: // an id that comes again
		e.SetsID, e.ID = true, sometimesID(1+kind%3)
	default:
		r.ids++
		e.SetsID, e.ID = true, "unique"+strconv.Itoa(r.ids)
	}
	if kind >= 224 && e.ID != "" {
		number = 0 // equal but for the id
	}
	e.Wire = []byte(fmt.Sprintf("%d/%s;", number, e.ID))
	if size >= 1000 {
		size *= 70
	}
	for len(e.Wire) < size {
		e.Wire = append(e.Wire, e.Wire[:min(len(e.Wire), size-len(e.Wire))]...)
	}
	return e
}

func (r *rehearsal) publish(e Entry) {
	r.log.Publish(e)
	r.model.publish(e)
	// Wire belongs to the caller again.
	clear(e.Wire)
}

func (r *rehearsal) expire() {
	next, ok := r.log.Expire()
	r.model.expire()
	if want := len(r.model.kept) > 0; ok != want {
		r.t.Fatalf("Expire() has more is %v, want %v", ok, want)
	}
	if ok && !next.Equal(r.model.kept[0].at.Add(r.model.limits.Age)) {
		r.t.Fatalf("Expire() is due at %v, want %v", next, r.model.kept[0].at.Add(r.model.limits.Age))
	}
}

func (r *rehearsal) drop() {
	r.log.Drop()
	for len(r.model.kept) > 0 {
		r.model.drop()
	}
}

// hold keeps a batch from somewhere in the log.
func (r *rehearsal) hold(where int) {
	if n := len(r.model.kept); n > 0 {
		batch := r.log.Read(r.model.tail()+Cursor(where%n), nil)
		r.held = append(r.held, heldBatch{batch.Bytes, bytes.Clone(batch.Bytes)})
	}
}

func (r *rehearsal) check() {
	t, log, m := r.t, r.log, r.model
	t.Helper()

	// Read and At expire nothing.
	for c := m.tail(); c < m.head(); c = log.Read(c, nil).Next {
		r.checkAt(c)
	}
	stride := Cursor(1 + len(m.kept)/8)
	for c := m.tail(); c < m.head(); c += stride {
		r.checkAt(c)
	}
	r.checkAt(m.tail() - min(1, m.tail()))
	r.checkAt(m.head())
	r.checkAt(m.head() + 1)

	same(t, "Newest()", log.Newest(), must(m.at(m.head())))
	m.expire()
	same(t, "Oldest()", log.Oldest(), must(m.at(m.oldest())))
	same(t, "Tail()", log.Tail(), must(m.at(m.tail())))
	for c := m.tail(); c <= m.head(); c += stride {
		same(t, fmt.Sprintf("FirstID(%d)", c), log.FirstID(c), m.firstID(c))
	}
	same(t, "FirstID(0)", log.FirstID(0), m.firstID(m.tail()))
	for _, n := range []int{0, 1, 2, 5, len(m.kept), len(m.kept) + 1, math.MaxInt} {
		same(t, fmt.Sprintf("Last(%d)", n), log.Last(n), m.last(n))
	}
	ids := []string{"", "unknown", "id1", "id2", "id3", m.before, m.id, "unique1", "unique" + strconv.Itoa(r.ids/2)}
	for c := m.tail(); c < m.head(); c += stride {
		ids = append(ids, m.entry(c).ID)
	}
	if m.oldest() > m.tail() {
		ids = append(ids, m.entry(m.oldest()-1).ID)
	}
	for _, id := range ids {
		got, ok := log.After(id)
		want, wantOK := m.after(id)
		if ok != wantOK || ok && got != want {
			t.Fatalf("After(%q) = %v, %v, want %v, %v", id, got, ok, want, wantOK)
		}
		got, ok = log.KeptAfter(id)
		want, wantOK = m.keptAfter(id)
		if ok != wantOK || ok && got != want {
			t.Fatalf("KeptAfter(%q) = %v, %v, want %v, %v", id, got, ok, want, wantOK)
		}
	}

	s := log.Stats()
	same(t, "Stats().Published", s.Published, uint64(m.head()))
	same(t, "Stats().Entries", s.Entries, len(m.kept))
	same(t, "Stats().Bytes", s.Bytes, m.bytes)
	same(t, "Stats().ID", s.ID, m.id)
	var oldest, newest time.Time
	if len(m.kept) > 0 {
		oldest, newest = m.kept[0].at, m.kept[len(m.kept)-1].at
	}
	if !s.Oldest.Equal(oldest) || !s.Newest.Equal(newest) {
		t.Fatalf("Stats() is from %v to %v, want %v to %v", s.Oldest, s.Newest, oldest, newest)
	}
	checkMemory(t, &log.ring)
}

func (r *rehearsal) checkAt(c Cursor) {
	t, log, m := r.t, r.log, r.model
	t.Helper()
	got, ok := log.At(c)
	want, wantOK := m.at(c)
	if got != want || ok != wantOK {
		t.Fatalf("At(%d) = %v, %v, want %v, %v", c, got, ok, want, wantOK)
	}

	batch := log.Read(c, nil)
	switch {
	case c < m.tail():
		if !batch.Lagged || batch.Bytes != nil || batch.Wake != nil {
			t.Fatalf("Read(%d) = %+v before the tail, %d", c, batch, m.tail())
		}
	case c >= m.head():
		if batch.Lagged || batch.Bytes != nil || batch.Wake == nil || batch.Next != c {
			t.Fatalf("Read(%d) = %+v at the head", c, batch)
		}
	case m.entry(c).Gap:
		if batch.Lagged || !batch.Gap || batch.Bytes != nil || batch.Wake != nil || batch.Next != c+1 {
			t.Fatalf("Read(%d) = %+v at a gap", c, batch)
		}
	default:
		for c := c; c < batch.Next; c++ {
			if m.entry(c).Gap {
				t.Fatalf("Read(%d) = %+v goes across a gap at %d", c, batch, c)
			}
		}
		if batch.Gap || batch.Lagged || batch.Wake != nil || batch.Next <= c || batch.Next > m.head() {
			t.Fatalf("Read(%d) = %+v, head is %d", c, batch, m.head())
		}
		if !m.has(batch.Bytes, c, batch.Next) {
			t.Fatalf("Read(%d) gives other bytes than entries %d to %d have", c, c, batch.Next)
		}
		if cap(batch.Bytes) != len(batch.Bytes) {
			t.Fatalf("Read(%d): appending to the batch would write to the log", c)
		}

		r.checkMatch(c, m.entry(c).Entry)
	}
}

// checkMatch looks for entry c and for two that are like it.
func (r *rehearsal) checkMatch(c Cursor, e Entry) {
	t, log, m := r.t, r.log, r.model
	t.Helper()
	otherID, otherBytes := e, e
	otherID.SetsID, otherID.ID = true, "unknown"
	otherBytes.Wire = e.Wire[:len(e.Wire)-1]
	for _, from := range []Cursor{0, m.tail(), c - min(c, 1), c, c + 1, m.head()} {
		for _, e := range []Entry{e, otherID, otherBytes} {
			got, ok := log.Match(from, e)
			want, wantOK := m.match(from, e)
			if got != want || ok != wantOK {
				t.Fatalf("Match(%d, %q) = %v, %v, want %v, %v", from, e.ID, got, ok, want, wantOK)
			}
		}
	}
}

// checkMemory holds the log to what Limits promises.
func checkMemory(t *testing.T, l *ring) {
	t.Helper()
	n := int(l.head - l.tail)
	if n > max(l.limits.Events, maxSlack) || l.bytes-l.giantSize > l.limits.Bytes {
		t.Fatalf("the log holds %d entries of %d bytes, limits are %+v", n, l.bytes, l.limits)
	}
	segments := map[*segment]bool{}
	if l.newest != nil {
		segments[l.newest] = true
	}
	for c := l.tail; c < l.head; c++ {
		segments[l.at(c).segment] = true
	}
	held := 0
	for s := range segments {
		held += cap(s.buf)
	}
	if most := l.bytes*9/8 + 2*maxSegment; held > most {
		t.Fatalf("the log holds %d bytes for entries of %d, want at most %d", held, l.bytes, most)
	}
	if len(l.slots) > max(minRing, 4*n, 2) {
		t.Fatalf("the ring has %d places for %d entries", len(l.slots), n)
	}
	if len(l.index) > n {
		t.Fatalf("the index has %d ids of %d entries", len(l.index), n)
	}
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s = %v, want %v", what, got, want)
	}
}

func must(p Position, ok bool) Position {
	if !ok {
		panic("the model has no such position")
	}
	return p
}

var firstSeed = flag.Uint64("seed", 0, "the first seed of tests that draw at random")

func TestLogDoesAsItsModel(t *testing.T) {
	for i := range uint64(200) {
		seed := *firstSeed + i
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			script := make([]byte, 20+random.IntN(200))
			for i := range script {
				script[i] = byte(random.Uint32())
			}
			synctest.Test(t, func(t *testing.T) { rehearse(t, script) })
		})
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte{0, 4, 2, 4, 250, 7, 0, 6, 3, 7})
	f.Add([]byte{3, 3, 1, 0, 5, 100, 0, 5, 100, 9, 0, 5, 5, 255, 0, 3, 10, 2, 1, 3, 1})
	f.Add([]byte{2, 4, 0, 8, 1, 0, 3, 50, 0, 2, 50, 6, 2, 0, 3, 50, 6, 4, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			t.Skip("long scripts find nothing that short ones do not")
		}
		synctest.Test(t, func(t *testing.T) { rehearse(t, script) })
	})
}
