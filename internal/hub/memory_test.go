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
	fill := func(t *testing.T, topic *Topic) {
		for i := range burst {
			topic.Append(Entry{Wire: benchWire[:200], ID: strconv.Itoa(i), SetsID: true})
		}
		if n := len(topic.log.ring); n < burst {
			t.Fatalf("the ring has %d places after the burst", n)
		}
	}

	t.Run("when the topic is quiet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			topic := New(limits)
			fill(t, topic)
			if used := int64(heap() - before); used < burst*200 {
				t.Fatalf("the burst takes %d bytes", used)
			}
			time.Sleep(time.Minute)
			topic.Expire()
			l := &topic.log
			if l.newest != nil || l.ring != nil || len(l.index) != 0 || l.bytes != 0 {
				t.Errorf("an empty log holds a segment: %v, a ring of %d, an index of %d, %d bytes",
					l.newest != nil, len(l.ring), len(l.index), l.bytes)
			}
			if left := int64(heap() - before); left > 64<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			same(t, "Newest()", topic.Newest(), Position{burst, strconv.Itoa(burst - 1)})
			topic.Publish(plain("x"))
			if got, _ := read(t, topic, burst); len(got) != len(plain("x").Wire) {
				t.Errorf("read %q after the burst", got)
			}
		})
	})

	t.Run("when one event came after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			topic := New(limits)
			fill(t, topic)
			time.Sleep(30 * time.Second)
			topic.Publish(withID("x"))
			time.Sleep(30 * time.Second)
			topic.Expire()
			if l := &topic.log; len(l.ring) != minRing || len(l.index) != 1 {
				t.Errorf("a log of one has a ring of %d and an index of %d", len(l.ring), len(l.index))
			}
			// It shares the last segment of the burst.
			if left := int64(heap() - before); left > maxSegment+64<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			if _, ok := topic.After("x"); !ok {
				t.Error("its id is lost")
			}
		})
	})

	t.Run("when the topic goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := heap()
			topic := New(limits)
			fill(t, topic)
			for range 120 {
				time.Sleep(time.Second)
				topic.Publish(plain("x"))
			}
			if l := &topic.log; len(l.ring) > 256 || len(l.index) > 60 {
				t.Errorf("a log of %d has a ring of %d and an index of %d", topic.Stats().Entries, len(l.ring), len(l.index))
			}
			if left := int64(heap() - before); left > 128<<10 {
				t.Errorf("%d bytes are left of the burst", left)
			}
			runtime.KeepAlive(topic)
		})
	})

	t.Run("when large entries drive it out", func(t *testing.T) {
		before := heap()
		topic := New(Limits{Events: 100_000, Bytes: 16 << 20, Age: time.Hour})
		fill(t, topic)
		for range 2 {
			topic.Publish(Entry{Wire: make([]byte, 8<<20)})
		}
		if left := int64(heap()-before) - 16<<20; left > 64<<10 {
			t.Errorf("%d bytes are left of the burst", left)
		}
		runtime.KeepAlive(topic)
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
			topic := New(Limits{Events: 20_000, Bytes: limit, Age: time.Hour})
			for i, written := 0, 0; written < 3*limit; i++ {
				size := tc.sizes[i%len(tc.sizes)]
				topic.Publish(Entry{Wire: benchWire[:size], ID: strconv.Itoa(i), SetsID: true})
				written += size
			}
			checkMemory(t, &topic.log)
			s := topic.Stats()
			got := int64(heap() - before)
			most := int64(s.Bytes)*9/8 + 2*maxSegment + int64(s.Entries)*300 + 4096
			if got > most {
				t.Errorf("%d entries of %d bytes take %d, want at most %d", s.Entries, s.Bytes, got, most)
			}
			runtime.KeepAlive(topic)
		})
	}
}

func TestQuietTopicIsSmall(t *testing.T) {
	const topics = 100
	before := heap()
	all := make([]*Topic, topics)
	for i := range all {
		all[i] = New(benchLimits)
		all[i].Publish(benchEntry(i, 200))
	}
	if got := int64(heap()-before) / topics; got > 2048 {
		t.Errorf("a topic with one event of 200 bytes takes %d, want at most 2048", got)
	}
	runtime.KeepAlive(all)
}

// A thousand events of 200 bytes fill three segments and a bit, each of which is
// two allocations; now and then the index needs one.
func TestPublishAllocates(t *testing.T) {
	topic := New(benchLimits)
	i := 0
	publish := func(add func(Entry)) func() {
		return func() {
			for range 1000 {
				add(benchEntry(i, 200))
				i++
			}
		}
	}
	one := func(e Entry) { topic.Publish(e) }
	publish(one)()
	publish(one)()
	if got := testing.AllocsPerRun(20, publish(one)); got > 12 {
		t.Errorf("a thousand Publish allocate %v times, want at most 12", got)
	}
	if got := testing.AllocsPerRun(20, publish(topic.Append)); got > 12 {
		t.Errorf("a thousand Append allocate %v times, want at most 12", got)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	topic := topicOf(Limits{Events: 100, Bytes: 1000, Age: time.Hour}, 1000)
	head := topic.Newest().Cursor
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"Read", func() { topic.Read(head-10, nil) }},
		{"Read at the head", func() { topic.Read(head, nil) }},
		{"Read, lagging", func() { topic.Read(0, nil) }},
		{"Watch", func() { topic.Watch(nil) }},
		{"Newest", func() { topic.Newest() }},
		{"Last", func() { topic.Last(10) }},
		{"At", func() { topic.At(head - 1) }},
		{"After", func() { topic.After("990") }},
		{"Match", func() { topic.Match(head-1, Entry{Wire: benchWire[:10], ID: "999", SetsID: true}) }},
		{"Expire", func() { topic.Expire() }},
		{"Stats", func() { topic.Stats() }},
	} {
		if got := testing.AllocsPerRun(100, tc.do); got != 0 {
			t.Errorf("%s allocates %v times, want 0", tc.name, got)
		}
	}
}
