package hub

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var roomy = Limits{Events: 1000, Bytes: 4 << 20, Age: time.Hour}

// The kinds of entries there are.
func withID(id string) Entry  { return Entry{Wire: []byte("id: " + id + "\n\n"), ID: id, SetsID: true} }
func plain(data string) Entry { return Entry{Wire: []byte("data: " + data + "\n\n")} }
func reset() Entry            { return Entry{Wire: []byte("id\n\n"), SetsID: true} }

// logOf returns a log that has entries 0 to n-1, each with its number as id.
func logOf(limits Limits, n int) *Log {
	log := New(limits)
	for i := range n {
		log.Publish(withID(strconv.Itoa(i)))
	}
	return log
}

// read returns all that there is from c on, and how many batches it came in.
func read(t *testing.T, log *Log, c Cursor) (got []byte, batches int) {
	t.Helper()
	for {
		batch := log.Read(c, nil)
		switch {
		case batch.Lagged:
			t.Fatalf("Read(%d) lags", c)
		case batch.Wake != nil:
			return got, batches
		}
		got = append(got, batch.Bytes...)
		c = batch.Next
		batches++
	}
}

func wires(entries ...Entry) (b []byte) {
	for _, e := range entries {
		b = append(b, e.Wire...)
	}
	return b
}

func isClosed(wake <-chan struct{}) bool {
	select {
	case <-wake:
		return true
	default:
		return false
	}
}

func TestRead(t *testing.T) {
	log := New(roomy)
	at := log.Newest()
	same(t, "Newest() of an empty log", at, Position{})
	nothing := log.Read(at.Cursor, nil)
	if nothing.Wake == nil || nothing.Bytes != nil || nothing.Lagged || nothing.Next != 0 {
		t.Fatalf("Read(0) of an empty log = %+v", nothing)
	}

	log.Publish(withID("1"), plain("x"))
	if !isClosed(nothing.Wake) {
		t.Error("Publish has not woken the reader")
	}
	batch := log.Read(at.Cursor, nil)
	if want := wires(withID("1"), plain("x")); !bytes.Equal(batch.Bytes, want) || batch.Next != 2 || batch.Wake != nil {
		t.Errorf("Read(0) = %q, next is %d, want %q, next is 2", batch.Bytes, batch.Next, want)
	}
	same(t, "the position behind", log.Newest(), Position{Cursor: 2, ID: "1"})
	if batch := log.Read(2, nil); batch.Wake == nil || isClosed(batch.Wake) {
		t.Errorf("Read(2) at the head = %+v", batch)
	}
}

// What a batch was must not change, whatever comes after it: it may be in the
// middle of a write to a slow client.
func TestBatchesStayAsTheyWere(t *testing.T) {
	for _, tc := range []struct {
		name    string
		size    int
		entries int
		batches int // at most
	}{
		{"many small ones", 20, 20_000, 20},
		{"one after the other", 20 << 10, 50, 50},
		{"just a segment", maxSegment, 20, 20},
		{"larger than a segment", maxSegment + 1, 20, 20},
		{"small and large in turn", -1, 100, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := New(Limits{Events: 30_000, Bytes: 4 << 20, Age: time.Hour})
			var want []byte
			for i := range tc.entries {
				size := tc.size
				if size < 0 {
					size = []int{10, maxSegment + 10}[i%2]
				}
				e := Entry{Wire: bytes.Repeat([]byte{byte(i)}, size)}
				want = append(want, e.Wire...)
				log.Publish(e)
				clear(e.Wire) // it is the caller's again
			}

			var held [][]byte
			at := log.Oldest().Cursor
			for at < log.Newest().Cursor {
				batch := log.Read(at, nil)
				held = append(held, batch.Bytes)
				at = batch.Next
			}
			if len(held) > tc.batches {
				t.Errorf("read in %d batches, want at most %d", len(held), tc.batches)
			}
			for range 20_000 { // all of it is evicted
				log.Publish(Entry{Wire: []byte(strings.Repeat("later", 100))})
			}
			if batch := log.Read(at-1, nil); !batch.Lagged {
				t.Fatal("the log still has what should have been evicted")
			}
			if !bytes.Equal(bytes.Join(held, nil), want) {
				t.Error("the batches have changed")
			}
		})
	}
}

func TestLag(t *testing.T) {
	log := logOf(Limits{Events: 10, Bytes: 100, Age: time.Hour}, 20) // of 7 or 8 bytes
	tail := log.Newest().Cursor - Cursor(log.Stats().Entries)
	same(t, "the tail", tail, 8)
	if batch := log.Read(tail-1, nil); !batch.Lagged || batch.Next != tail-1 || batch.Bytes != nil || batch.Wake != nil {
		t.Errorf("Read before the tail = %+v, want lagged", batch)
	}
	if _, ok := log.At(tail - 1); ok {
		t.Error("At has a position before the tail")
	}
	if batch := log.Read(tail, nil); batch.Lagged {
		t.Error("Read at the tail lags")
	}
	pos, ok := log.At(tail)
	if want := (Position{tail, "7"}); pos != want || !ok {
		t.Errorf("At(tail) = %v, %v, want %v", pos, ok, want)
	}
	if _, ok := log.At(log.Newest().Cursor + 1); ok {
		t.Error("At has a position after the head")
	}
}

// With a history of one, a reader that the scheduler left out for a while must
// not lag.
func TestSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logOf(Limits{Events: 1, Bytes: 1 << 20, Age: time.Hour}, 1)
		at := log.Newest()
		var burst []Entry
		for i := range 500 {
			burst = append(burst, withID(strconv.Itoa(1+i)))
		}
		for _, e := range burst {
			log.Publish(e)
		}

		if got, _ := read(t, log, at.Cursor); !bytes.Equal(got, wires(burst...)) {
			t.Errorf("a reader a burst behind got %d bytes, want %d", len(got), len(wires(burst...)))
		}
		same(t, "Oldest()", log.Oldest(), Position{500, "499"})
		same(t, "Last(100)", log.Last(100), Position{500, "499"})
		for _, tc := range []struct {
			id   string
			want bool
		}{{"500", true}, {"499", true}, {"498", false}, {"0", false}} {
			if _, ok := log.After(tc.id); ok != tc.want {
				t.Errorf("After(%q) found it: %v, want %v", tc.id, ok, tc.want)
			}
		}

		time.Sleep(slackTime)
		for i := range slack - 500 {
			log.Publish(withID(strconv.Itoa(501 + i)))
		}
		if batch := log.Read(at.Cursor, nil); batch.Lagged {
			t.Errorf("a reader %d behind lags", slack)
		}
		log.Publish(plain("one more"))
		if batch := log.Read(at.Cursor, nil); !batch.Lagged {
			t.Errorf("a reader %d behind does not lag", slack+1)
		}

		// What has come lately is kept, up to a bound.
		log = logOf(Limits{Events: 1, Bytes: 1 << 20, Age: time.Hour}, maxSlack)
		if batch := log.Read(0, nil); batch.Lagged {
			t.Errorf("a reader of a burst lags %d behind", maxSlack)
		}
		log.Publish(plain("one more"))
		if batch := log.Read(0, nil); !batch.Lagged {
			t.Errorf("a reader of a burst does not lag %d behind", maxSlack+1)
		}
		time.Sleep(slackTime)
		log.Publish(plain("later"))
		same(t, "entries", log.Stats().Entries, slack)
	})
}

func TestBounds(t *testing.T) {
	big := func(n int) Entry { return Entry{Wire: bytes.Repeat([]byte("x"), n)} }
	for _, tc := range []struct {
		name        string
		limits      Limits
		entries     []Entry
		kept, bytes int
	}{
		{"bytes", Limits{10, 100, time.Hour}, []Entry{big(50), big(40), big(11)}, 2, 51},
		{"bytes to the last", Limits{10, 100, time.Hour}, []Entry{big(50), big(40), big(10)}, 3, 100},
		{"a large one drives out none", Limits{10, 100, time.Hour}, []Entry{big(50), big(1000)}, 2, 1050},
		{"and stays for the next", Limits{10, 100, time.Hour}, []Entry{big(1000), big(1)}, 2, 1001},
		{"until they are as many as may be", Limits{10, 100, time.Hour}, []Entry{big(1000), big(50), big(50), big(1)}, 2, 51},
		{"or another large one comes", Limits{10, 100, time.Hour}, []Entry{big(1000), big(1), big(51)}, 2, 52},
		{"half of the bound is not large", Limits{10, 100, time.Hour}, []Entry{big(50), big(50), big(50)}, 2, 100},
		{"larger than a segment", Limits{10, 100, time.Hour}, []Entry{big(1 << 20), big(1 << 20)}, 1, 1 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := New(tc.limits)
			for _, e := range tc.entries {
				log.Publish(e)
				checkMemory(t, &log.ring)
			}
			s := log.Stats()
			if s.Entries != tc.kept || s.Bytes != tc.bytes {
				t.Errorf("%d entries of %d bytes, want %d of %d", s.Entries, s.Bytes, tc.kept, tc.bytes)
			}
			last := tc.entries[len(tc.entries)-1]
			if got, _ := read(t, log, log.Last(1).Cursor); !bytes.Equal(got, last.Wire) {
				t.Errorf("the newest entry has %d bytes, want %d", len(got), len(last.Wire))
			}
		})
	}

	t.Run("events", func(t *testing.T) {
		log := logOf(Limits{maxSlack + 500, 1 << 20, time.Hour}, maxSlack+1000)
		same(t, "entries", log.Stats().Entries, maxSlack+500)
		same(t, "Oldest()", log.Oldest(), Position{500, "499"})
	})
	t.Run("fewer events than the slack", func(t *testing.T) {
		log := logOf(Limits{10, 1 << 20, time.Hour}, maxSlack+1000)
		same(t, "entries", log.Stats().Entries, maxSlack)
		same(t, "Oldest()", log.Oldest(), Position{maxSlack + 990, strconv.Itoa(maxSlack + 989)})
	})
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := New(Limits{Events: 10, Bytes: 1000, Age: time.Minute})
		begin := time.Now()
		log.Publish(withID("1"))
		time.Sleep(20 * time.Second)
		log.Publish(withID("2"))
		same(t, "Stats().Oldest", log.Stats().Oldest, begin)
		same(t, "Stats().Newest", log.Stats().Newest, begin.Add(20*time.Second))

		time.Sleep(40*time.Second - 1)
		same(t, "Oldest() before its time", log.Oldest(), Position{})
		due, ok := log.Expire()
		if !ok || !due.Equal(begin.Add(time.Minute)) {
			t.Errorf("Expire() = %v, %v, want %v", due, ok, begin.Add(time.Minute))
		}
		time.Sleep(time.Until(due))
		due, ok = log.Expire()
		if !ok || !due.Equal(begin.Add(80*time.Second)) {
			t.Errorf("Expire() when due = %v, %v, want %v", due, ok, begin.Add(80*time.Second))
		}
		if batch := log.Read(0, nil); !batch.Lagged {
			t.Error("what was due is still there")
		}

		// Whoever looks for a place to begin is not given what is too old.
		time.Sleep(20 * time.Second)
		same(t, "Last(10)", log.Last(10), Position{2, "2"})
		same(t, "entries", log.Stats().Entries, 0)
		if pos, ok := log.After("2"); !ok || pos != (Position{2, "2"}) {
			t.Errorf("After(%q) = %v, %v: nothing was missed", "2", pos, ok)
		}
		if _, ok := log.After("1"); ok {
			t.Errorf("After(%q) found it", "1")
		}
		if due, ok := log.Expire(); ok || !due.IsZero() {
			t.Errorf("Expire() of an empty log = %v, %v", due, ok)
		}

		// Publishing drops it, too.
		log.Publish(withID("3"))
		time.Sleep(time.Minute)
		log.Publish(withID("4"))
		same(t, "entries", log.Stats().Entries, 1)
	})
}

// Nobody is given a place to begin at among what is too old, whoever has looked
// before.
func TestBeginningExpires(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*Log) (Position, bool)
		want Cursor // 0 for no place
	}{
		{"Oldest", func(log *Log) (Position, bool) { return log.Oldest(), true }, 3},
		{"Last", func(log *Log) (Position, bool) { return log.Last(3), true }, 3},
		{"After", func(log *Log) (Position, bool) { return log.After("1") }, 0},
		{"After the last to go", func(log *Log) (Position, bool) { return log.After("2") }, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := logOf(Limits{Events: 10, Bytes: 1000, Age: time.Minute}, 3)
				time.Sleep(30 * time.Second)
				log.Publish(plain("x"))
				time.Sleep(30 * time.Second)
				pos, ok := tc.do(log)
				same(t, "whether there is a place", ok, tc.want > 0)
				same(t, "the place", pos.Cursor, tc.want)
				same(t, "the entries left", log.Stats().Entries, 1)
			})
		})
	}
}

func TestAfter(t *testing.T) {
	five := Limits{Events: 5, Bytes: 1 << 20, Age: time.Hour}
	byBytes := func(entries ...Entry) Limits {
		return Limits{Events: 100, Bytes: len(wires(entries...)), Age: time.Hour}
	}
	type want map[string]int // the cursor, -1 if not found
	for _, tc := range []struct {
		name    string
		limits  Limits
		start   string
		entries []Entry
		want    want
	}{
		{"nothing yet", five, "", nil, want{"": -1, "1": -1}},
		{"the beginning", five, "0", nil, want{"0": 0, "": -1, "1": -1}},
		{"the beginning, later", five, "0", []Entry{plain("x"), withID("1")}, want{"0": 0, "1": 2}},
		{"the beginning, come again", five, "0", []Entry{withID("1"), withID("0"), withID("2")}, want{"0": 2}},
		{"each", five, "", []Entry{withID("1"), withID("2"), withID("3")}, want{"": -1, "1": 1, "2": 2, "3": 3, "4": -1}},
		{"the newest that set it", five, "", []Entry{withID("1"), withID("2"), withID("1"), withID("3")}, want{"1": 3, "2": 2}},
		{"not those it stayed for", five, "", []Entry{withID("1"), plain("x"), plain("y"), withID("2")}, want{"1": 1, "2": 4}},
		{"a reset", five, "", []Entry{withID("1"), reset(), plain("x")}, want{"": -1, "1": 1}},
		{"not in the history", five, "", []Entry{withID("1"), withID("2"), withID("3"), withID("4"), withID("5"), withID("6"), withID("7")}, want{"1": -1, "2": 2, "3": 3}},
		{"evicted", byBytes(withID("2"), withID("3")), "", []Entry{withID("0"), withID("1"), withID("2"), withID("3")}, want{"0": -1, "1": 2, "2": 3, "3": 4}},
		{"evicted, with some after it", byBytes(withID("2"), withID("3")), "", []Entry{withID("1"), {Wire: []byte("x")}, withID("2"), withID("3")}, want{"1": -1, "2": 3}},
		{"evicted, and come again", byBytes(withID("1"), withID("3")), "", []Entry{withID("1"), withID("2"), withID("1"), withID("3")}, want{"1": 3, "2": 2}},
		{"a reset evicted", byBytes(withID("2"), withID("3")), "", []Entry{withID("1"), reset(), withID("2"), withID("3")}, want{"": -1, "1": -1}},
		{"the beginning evicted", byBytes(withID("2")), "0", []Entry{withID("1"), withID("2")}, want{"0": -1, "1": 1, "2": 2}},
		{"the beginning before an evicted", byBytes(withID("2")), "0", []Entry{plain("x"), withID("2")}, want{"0": -1, "2": 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := NewAfter(tc.start, tc.limits)
			log.Publish(tc.entries...)
			for id, want := range tc.want {
				pos, ok := log.After(id)
				got := int(pos.Cursor)
				if !ok {
					got = -1
				}
				if got != want {
					t.Errorf("After(%q) = %d, want %d", id, got, want)
				}
				if ok && pos.ID != id {
					t.Errorf("After(%q) has id %q", id, pos.ID)
				}
			}
		})
	}
}

func TestNewAfter(t *testing.T) {
	log := NewAfter("7", roomy)
	same(t, "Newest()", log.Newest(), Position{0, "7"})
	log.Publish(plain("x"))
	same(t, "Oldest()", log.Oldest(), Position{0, "7"})
	same(t, "Newest()", log.Newest(), Position{1, "7"})
}

// The id of a position is the one in force there, whoever set it.
func TestPositions(t *testing.T) {
	log := New(roomy)
	log.Publish(plain("a"), withID("1"), plain("b"), withID("2"), reset(), plain("c"))
	for c, want := range []string{"", "", "1", "1", "2", "", ""} {
		pos, ok := log.At(Cursor(c))
		if !ok || pos != (Position{Cursor(c), want}) {
			t.Errorf("At(%d) = %v, %v, want id %q", c, pos, ok, want)
		}
	}
	same(t, "Last(2)", log.Last(2), Position{4, "2"})
	same(t, "Last(0)", log.Last(0), log.Newest())
	same(t, "Last(100)", log.Last(100), log.Oldest())
}

func TestMatch(t *testing.T) {
	other := withID("2")
	other.Wire = []byte("id: 2\ndata: other\n\n")
	unset := withID("2")
	unset.SetsID, unset.ID = false, ""
	repeated := []Entry{
		{Wire: []byte("a"), ID: "1", SetsID: true},
		{Wire: []byte("b"), ID: "1", SetsID: true},
		{Wire: []byte("c"), ID: "1", SetsID: true},
	}
	for _, tc := range []struct {
		name   string
		have   []Entry
		from   Cursor
		replay []Entry
		want   []int // the cursor after each, -1 if it is no replay
	}{
		{"all of it", []Entry{withID("1"), withID("2"), withID("3")}, 0, []Entry{withID("1"), withID("2"), withID("3"), withID("4")}, []int{1, 2, 3, -1}},
		{"from the middle", []Entry{withID("1"), withID("2"), withID("3")}, 0, []Entry{withID("2"), withID("3")}, []int{2, 3}},
		{"with holes", []Entry{withID("1"), withID("2"), withID("3")}, 0, []Entry{withID("1"), withID("3")}, []int{1, 3}},
		{"not backwards", []Entry{withID("1"), withID("2"), withID("3")}, 0, []Entry{withID("3"), withID("2")}, []int{3, -1}},
		{"other bytes", []Entry{withID("1"), withID("2")}, 0, []Entry{other}, []int{-1}},
		{"the same bytes without the id", []Entry{withID("1"), withID("2")}, 1, []Entry{unset}, []int{-1}},
		{"without id, in its turn", []Entry{withID("1"), plain("x"), withID("2")}, 0, []Entry{withID("1"), plain("x"), withID("2")}, []int{1, 2, 3}},
		{"without id, out of turn", []Entry{withID("1"), plain("x"), plain("y")}, 0, []Entry{withID("1"), plain("y")}, []int{1, -1}},
		{"a reset, in its turn", []Entry{withID("1"), reset(), plain("x"), withID("2")}, 0, []Entry{withID("1"), reset(), plain("x"), withID("2")}, []int{1, 2, 3, 4}},
		{"a reset, out of turn", []Entry{withID("1"), plain("x"), reset()}, 0, []Entry{withID("1"), reset()}, []int{1, -1}},
		{"an id on several", repeated, 0, repeated, []int{1, 2, 3}},
		{"an id on several, its newest", repeated, 0, repeated[2:], []int{3}},
		{"nothing there", nil, 0, []Entry{withID("1"), plain("x")}, []int{-1, -1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := New(roomy)
			log.Publish(tc.have...)
			at := tc.from
			for i, e := range tc.replay {
				next, ok := log.Match(at, e)
				got := int(next)
				if !ok {
					got = -1
					same(t, "the cursor of what does not match", next, at)
				}
				if got != tc.want[i] {
					t.Errorf("Match(%d, %q) = %d, want %d", at, e.Wire, got, tc.want[i])
				}
				at = next
			}
		})
	}

	t.Run("behind the tail", func(t *testing.T) {
		log := logOf(Limits{Events: 10, Bytes: 100, Age: time.Hour}, 20)
		if next, ok := log.Match(0, withID("15")); !ok || next != 16 {
			t.Errorf("Match(0, 15) = %d, %v, want 16", next, ok)
		}
		if _, ok := log.Match(0, withID("1")); ok {
			t.Error("Match found what is evicted")
		}
	})
}

func TestPublishTakesNone(t *testing.T) {
	log := New(roomy)
	log.Publish()
	same(t, "Newest()", log.Newest(), Position{})
}

func ExampleLog() {
	log := New(Limits{Events: 100, Bytes: 1 << 20, Age: time.Minute})
	log.Publish(
		Entry{Wire: []byte("id: 1\ndata: one\n\n"), ID: "1", SetsID: true},
		Entry{Wire: []byte("id: 2\ndata: two\n\n"), ID: "2", SetsID: true},
	)
	at, found := log.After("1")
	fmt.Println(at, found)
	batch := log.Read(at.Cursor, nil)
	fmt.Printf("%q, then %d\n", batch.Bytes, batch.Next)
	// Output:
	// {1 1} true
	// "id: 2\ndata: two\n\n", then 2
}
