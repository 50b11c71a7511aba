package hub

import (
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestBurstIsGivenBack(t *testing.T) {
	const burst = 50_000
	limits := Limits{Events: 100_000, Bytes: 64 << 20, Age: time.Minute}
	fill := func(t *testing.T, log *Log) {
		for i := range burst {
			log.Append(Entry{Wire: benchWire[:200], ID: strconv.Itoa(i), SetsID: true})
		}
		if n := len(log.ring.slots); n < burst {
			t.Fatalf("the ring has %d places after the burst", n)
		}
	}

	t.Run("when the log is quiet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			log := New(limits)
			fill(t, log)
			if used := int64(heap() - before); used < burst*200 {
				t.Fatalf("the burst takes %d bytes", used)
			}
			time.Sleep(time.Minute)
			log.Expire()
			l := &log.ring
			if l.newest != nil || l.slots != nil || len(l.index) != 0 || l.bytes != 0 {
				t.Errorf("an empty log holds a segment: %v, a ring of %d, an index of %d, %d bytes",
					l.newest != nil, len(l.slots), len(l.index), l.bytes)
			}
			if left := int64(heap() - before); left > 64<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			same(t, "Newest()", log.Newest(), Position{burst, strconv.Itoa(burst - 1)})
			log.Publish(plain("x"))
			if got, _ := read(t, log, burst); len(got) != len(plain("x").Wire) {
				t.Errorf("read %q after the burst", got)
			}
		})
	})

	t.Run("when one event came after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			log := New(limits)
			fill(t, log)
			time.Sleep(30 * time.Second)
			log.Publish(withID("x"))
			time.Sleep(30 * time.Second)
			log.Expire()
			if l := &log.ring; len(l.slots) != minRing || len(l.index) != 1 {
				t.Errorf("a log of one has a ring of %d and an index of %d", len(l.slots), len(l.index))
			}
			// It shares the last segment of the burst.
			if left := int64(heap() - before); left > maxSegment+64<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			if _, ok := log.After("x"); !ok {
				t.Error("its id is lost")
			}
		})
	})

	t.Run("when the log goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			log := New(limits)
			fill(t, log)
			for range 120 {
				time.Sleep(time.Second)
				log.Publish(plain("x"))
			}
			if l := &log.ring; len(l.slots) > 256 || len(l.index) > 60 {
				t.Errorf("a log of %d has a ring of %d and an index of %d", log.Stats().Entries, len(l.slots), len(l.index))
			}
			if left := int64(heap() - before); left > 128<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			runtime.KeepAlive(log)
		})
	})

	t.Run("when large entries drive it out", func(t *testing.T) {
		before := heap()
		log := New(Limits{Events: 100_000, Bytes: 16 << 20, Age: time.Hour})
		fill(t, log)
		for range 2 {
			log.Publish(Entry{Wire: make([]byte, 8<<20)})
		}
		if left := int64(heap()-before) - 16<<20; left > 64<<10 {
			t.Errorf("%d bytes are left of the burst", left)
		}
		runtime.KeepAlive(log)
	})
}

// What checkMemory computes is what the heap says.
func TestMemoryIsAsStated(t *testing.T) {
	for _, tc := range []struct {
		name  string
		sizes []int
	}{
		{"200 B", []int{200}},
		{"2 KiB", []int{2 << 10}},
		{"13 KiB", []int{13 << 10}},
		{"40 KiB", []int{40 << 10}},
		{"small and large in turn", []int{10, 64 << 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const limit = 4 << 20
			before := heap()
			log := New(Limits{Events: 20_000, Bytes: limit, Age: time.Hour})
			for i, written := 0, 0; written < 3*limit; i++ {
				size := tc.sizes[i%len(tc.sizes)]
				log.Publish(Entry{Wire: benchWire[:size], ID: strconv.Itoa(i), SetsID: true})
				written += size
			}
			checkMemory(t, &log.ring)
			s := log.Stats()
			got := int64(heap() - before)
			most := int64(s.Bytes)*9/8 + 2*maxSegment + int64(s.Entries)*300 + 4096
			if got > most {
				t.Errorf("%d entries of %d bytes take %d, want at most %d", s.Entries, s.Bytes, got, most)
			}
			runtime.KeepAlive(log)
		})
	}
}

func TestQuietLogIsSmall(t *testing.T) {
	const logs = 100
	before := heap()
	all := make([]*Log, logs)
	for i := range all {
		all[i] = New(benchLimits)
		all[i].Publish(benchEntry(i, 200))
	}
	if got := int64(heap()-before) / logs; got > 2048 {
		t.Errorf("a log with one event of 200 bytes takes %d, want at most 2048", got)
	}
	runtime.KeepAlive(all)
}

// A thousand events of 200 bytes fill three segments and a bit, each of which is
// two allocations; now and then the index needs one.
func TestPublishAllocates(t *testing.T) {
	log := New(benchLimits)
	i := 0
	publish := func(add func(Entry)) func() {
		return func() {
			for range 1000 {
				add(benchEntry(i, 200))
				i++
			}
		}
	}
	one := func(e Entry) { log.Publish(e) }
	publish(one)()
	publish(one)()
	if got := testing.AllocsPerRun(20, publish(one)); got > 12 {
		t.Errorf("a thousand Publish allocate %v times, want at most 12", got)
	}
	if got := testing.AllocsPerRun(20, publish(log.Append)); got > 12 {
		t.Errorf("a thousand Append allocate %v times, want at most 12", got)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	log := logOf(Limits{Events: 100, Bytes: 1000, Age: time.Hour}, 1000)
	head := log.Newest().Cursor
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"Read", func() { log.Read(head-10, nil) }},
		{"Read at the head", func() { log.Read(head, nil) }},
		{"Read, lagging", func() { log.Read(0, nil) }},
		{"Watch", func() { log.Watch(nil) }},
		{"Newest", func() { log.Newest() }},
		{"Last", func() { log.Last(10) }},
		{"At", func() { log.At(head - 1) }},
		{"After", func() { log.After("990") }},
		{"Match", func() { log.Match(head-1, Entry{Wire: benchWire[:10], ID: "999", SetsID: true}) }},
		{"Expire", func() { log.Expire() }},
		{"Stats", func() { log.Stats() }},
	} {
		if got := testing.AllocsPerRun(100, tc.do); got != 0 {
			t.Errorf("%s allocates %v times, want 0", tc.name, got)
		}
	}
}
