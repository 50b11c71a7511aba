package relay

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// Views read while each lock of the engine is held.
func TestViewsTakeNoLock(t *testing.T) {
	watchdog := time.AfterFunc(time.Minute, func() { panic("a view waits for a lock of the engine") })
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Catchups = 1
		b := newBench(t, cfg)
		live := b.live()
		defer live.Close()
		read(live)
		fetching := b.resume("8")
		defer fetching.Close()
		b.next().accept().events(9, 9)
		read(fetching)
		queued := b.resume("7")
		defer queued.Close()
		topic := live.Topic()

		locks := make(map[*sync.Mutex]bool)
		for _, root := range []any{b.Relay, live, fetching, queued} {
			findLocks(reflect.ValueOf(root), locks, make(map[unsafe.Pointer]bool))
		}
		for _, needed := range []*sync.Mutex{
			&b.mu, &topic.mu, &topic.roster.serving.mu, &b.all.mu, &topic.catchups.mu,
			&fetching.catchup.mu, &queued.catchup.mu, &topic.greeting.mu, &b.backlogs.mu, &b.futile.mu,
		} {
			if !locks[needed] {
				t.Error("a lock was not found")
			}
		}
		for lock := range locks {
			lock.Lock()
			defer lock.Unlock()
		}

		seen := topic.Snapshot()
		if seen.State != StateConnected || seen.Subscribers != 3 || seen.Waiting != 0 || seen.Delivered != 4 ||
			seen.CatchupsRunning != 1 || seen.CatchupsQueued != 1 || seen.CatchupAddresses != 1 {
			t.Errorf("the topic is seen as %+v", seen)
		}
		subscribers := topic.SubscriberSnapshots()
		if len(subscribers) != 3 || subscribers[0].Events != 3 || !subscribers[0].Known || subscribers[1].Events != 1 || subscribers[1].Known {
			t.Errorf("the subscribers are seen as %+v", subscribers)
		}
		if topic.Subscriber(subscribers[2].Number) != queued.Subscriber {
			t.Error("a subscriber is not found by its number")
		}
		var g Gauges
		b.AddTo(&g)
		if want := (Gauges{Subscribers: 3, Topics: 1, HistoryEvents: 3, HistoryBytes: len(numbered(10, 12))}); g != want {
			t.Errorf("the gauges are %+v, want %+v", g, want)
		}
		if current, ending := b.Topics(); !slices.Equal(current, []*Topic{topic}) || len(ending) > 0 {
			t.Error("the topic is not seen")
		}
	})
}

// findLocks finds the locks in v, and in what it leads to, that are of this package.
func findLocks(v reflect.Value, locks map[*sync.Mutex]bool, been map[unsafe.Pointer]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if p := v.UnsafePointer(); p != nil && !been[p] {
			been[p] = true
			findLocks(v.Elem(), locks, been)
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			findLocks(entries.Key(), locks, been)
			findLocks(entries.Value(), locks, been)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			findLocks(v.Index(i), locks, been)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[sync.Mutex]() {
			locks[(*sync.Mutex)(v.Addr().UnsafePointer())] = true
			return
		}
		if v.Type().PkgPath() != reflect.TypeFor[Relay]().PkgPath() {
			return // locks of others, which are theirs to hold
		}
		for _, field := range v.Fields() {
			findLocks(field, locks, been)
		}
	default:
	}
}

// Against a map, with elements that come and go in any order.
func TestRegistryAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // to be repeated
	var r registry[int]
	in := make(map[*int]*seat[int])
	for round := range 20000 {
		// It grows and empties by turns.
		if grows := round/4000%2 == 0; len(in) == 0 || random.IntN(10) < 3 != grows {
			element := &round
			in[element] = r.add(element)
		} else {
			for element, seat := range in {
				r.remove(seat)
				delete(in, element)
				break
			}
		}
		if round%100 > 0 {
			continue
		}
		seen := slices.Collect(r.all())
		if r.len() != len(in) || len(seen) != len(in) {
			t.Fatalf("%d are counted and %d seen, want %d", r.len(), len(seen), len(in))
		}
		for _, element := range seen {
			if in[element] == nil {
				t.Fatal("one is seen that has left")
			}
		}
	}
	for element := range maps.Clone(in) {
		r.remove(in[element])
	}
	if r.len() != 0 || r.first.Load() != nil {
		t.Error("it is empty, and has memory")
	}
}

// What was delivered in all never gets less, whoever leaves meanwhile.
func TestDeliveredNeverGoesBack(t *testing.T) {
	var (
		r    roster
		over atomic.Bool
		all  sync.WaitGroup
	)
	all.Go(func() {
		defer over.Store(true)
		for range 20000 {
			s, reader := new(Subscriber), new(Reader)
			s.reader.Store(reader)
			r.enter(s)
			reader.events.Add(1)
			r.leave(s)
		}
	})
	var last uint64
	for !over.Load() {
		if _, events, _ := r.delivered(); events < last {
			t.Errorf("%d events were delivered, and %d before", events, last)
			break
		} else {
			last = events
		}
	}
	all.Wait()
	if serving, events, _ := r.delivered(); serving != 0 || events != 20000 {
		t.Errorf("%d are there, and %d events were delivered", serving, events)
	}
}
