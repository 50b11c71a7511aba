package hub

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// numbered returns an entry that says its place.
func numbered(n int) Entry {
	return Entry{Wire: binary.BigEndian.AppendUint64(nil, uint64(n))}
}

// A follower checks that it gets numbered entries without a hole.
type follower struct {
	t      *testing.T
	log    *Log
	cursor Cursor
}

// take takes what there is. If that is nothing, it returns what to wait for.
func (f *follower) take() (wake <-chan struct{}) {
	batch := f.log.Read(f.cursor, nil)
	if batch.Lagged {
		f.t.Errorf("a reader lags at %d", f.cursor)
	}
	for b := batch.Bytes; len(b) > 0; b = b[8:] {
		if got := Cursor(binary.BigEndian.Uint64(b)); got != f.cursor {
			f.t.Errorf("got entry %d, want %d", got, f.cursor)
		}
		f.cursor++
	}
	if f.cursor != batch.Next {
		f.t.Errorf("the next is said to be %d, want %d", batch.Next, f.cursor)
	}
	return batch.Wake
}

// follow takes entries up to the one with number n.
func (f *follower) follow(n int) {
	for int(f.cursor) < n && !f.t.Failed() {
		if wake := f.take(); wake != nil {
			<-wake
		}
	}
}

// finish waits for all of group. One that waits for ever has missed a wake-up.
func finish(t *testing.T, group *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a reader waits for ever")
	}
}

// noLeaks fails the test if it leaves goroutines behind.
func noLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			n := runtime.NumGoroutine()
			if n <= before {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d goroutines are left, want %d", n, before)
			}
		}
	})
}

// The publisher waits for the readers after every few entries, so that it finds
// them in the moment in which they are about to wait.
func TestNoWakeUpIsLost(t *testing.T) {
	noLeaks(t)
	const readers, entries = 50, 5000
	t.Logf("seed %d", *firstSeed)
	log := New(roomy)
	var taken atomic.Int64
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			f := follower{t: t, log: log}
			for i := range entries {
				f.follow(i + 1)
				taken.Add(1)
			}
		})
	}
	group.Go(func() {
		random := rand.New(rand.NewPCG(*firstSeed, 2))
		for i := 0; i < entries && !t.Failed(); {
			n := min(1+random.IntN(3), entries-i)
			switch random.IntN(3) {
			case 0:
				for range n {
					log.Publish(numbered(i))
					i++
				}
			case 1:
				for range n {
					log.Append(numbered(i))
					i++
				}
				log.Wake()
			case 2:
				for range n {
					log.Append(numbered(i))
					i++
				}
				log.Beat()
			}
			for taken.Load() < int64(readers*i) && !t.Failed() {
				runtime.Gosched()
			}
		}
	})
	finish(t, &group)
}

// Nobody waits for anybody, and there are several of all.
func TestPublishersAndReadersAtOnce(t *testing.T) {
	noLeaks(t)
	const publishers, readers, each = 4, 20, 5000
	log := New(Limits{Events: publishers * each, Bytes: 1 << 30, Age: time.Hour})
	var ready, group sync.WaitGroup
	for range readers {
		ready.Add(1)
		group.Go(func() {
			ready.Done()
			var cursor Cursor
			var next [publishers]byte
			for cursor < publishers*each {
				batch := log.Read(cursor, nil)
				if batch.Wake != nil {
					<-batch.Wake
					continue
				}
				for i := 0; i < len(batch.Bytes); i += 2 {
					p, n := batch.Bytes[i], batch.Bytes[i+1]
					if n != next[p] {
						t.Errorf("got entry %d of publisher %d, want %d", n, p, next[p])
						return
					}
					next[p]++
				}
				cursor = batch.Next
			}
		})
	}
	ready.Wait()
	for p := range publishers {
		group.Go(func() {
			for i := range each {
				log.Publish(Entry{Wire: []byte{byte(p), byte(i)}})
			}
		})
	}
	// Those who come and go meanwhile.
	group.Go(func() {
		for log.Newest().Cursor < publishers*each {
			log.Oldest()
			log.Last(10)
			log.After("unknown")
			log.Match(0, numbered(0))
			log.Stats()
			log.Expire()
			log.Watch(nil)
			log.Wake()
			log.Beat()
		}
	})
	finish(t, &group)
}

func TestTenThousandCursors(t *testing.T) {
	noLeaks(t)
	const cursors, goroutines, entries = 10_000, 8, 300
	log := New(roomy)
	var group sync.WaitGroup
	for range goroutines {
		followers := make([]follower, cursors/goroutines)
		for i := range followers {
			followers[i] = follower{t: t, log: log}
		}
		group.Go(func() {
			for followers[len(followers)-1].cursor < entries && !t.Failed() {
				var wake <-chan struct{}
				for i := range followers {
					// The first to find nothing is the first to be woken.
					if w := followers[i].take(); w != nil && wake == nil {
						wake = w
					}
				}
				if wake != nil {
					<-wake
				}
			}
			for i := range followers {
				followers[i].follow(entries)
			}
		})
	}
	for i := range entries {
		log.Publish(numbered(i))
	}
	finish(t, &group)
}

// As it is behind HTTP: a goroutine for each reader. The race detector does not
// allow for ten thousand.
func TestThousandsWakeAtOnce(t *testing.T) {
	noLeaks(t)
	const readers, entries = 4000, 20
	log := New(roomy)
	for round := range entries {
		var waiting, group sync.WaitGroup
		waiting.Add(readers)
		for range readers {
			group.Go(func() {
				f := follower{t: t, log: log, cursor: Cursor(round)}
				wake := f.take()
				waiting.Done()
				<-wake
				f.take()
				if f.cursor != Cursor(round+1) {
					t.Errorf("a reader is at %d, want %d", f.cursor, round+1)
				}
			})
		}
		waiting.Wait()
		log.Publish(numbered(round))
		finish(t, &group)
	}
}

// A publisher that waited for one of these would wait for ever, and synctest
// would say so.
func TestPublishWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := New(Limits{Events: 100, Bytes: 1 << 20, Age: time.Hour})
		log.Publish(numbered(0))
		stuck := make(chan struct{})
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				batch := log.Read(0, nil)
				<-stuck // in a write
				if batch.Next != 1 || len(batch.Bytes) != 8 {
					t.Errorf("Read(0) = %+v", batch)
				}
				if batch := log.Read(batch.Next, nil); !batch.Lagged {
					t.Errorf("Read(1) = %+v, want lagged", batch)
				}
			})
			readers.Go(func() {
				batch := log.Read(1, nil)
				<-stuck
				if !isClosed(batch.Wake) {
					t.Error("a reader was not woken")
				}
			})
		}
		cursors := make([]Cursor, 10_000) // far behind
		synctest.Wait()
		for i := range 5000 {
			log.Publish(numbered(1 + i))
		}
		time.Sleep(slackTime)
		log.Publish(numbered(5001))
		for _, c := range cursors {
			if batch := log.Read(c, nil); !batch.Lagged {
				t.Fatalf("Read(%d) = %+v, want lagged", c, batch)
			}
		}
		close(stuck)
		readers.Wait()
	})
}

func TestWakeAndBeat(t *testing.T) {
	log := New(roomy)
	for _, tc := range []struct {
		name string
		do   func()
		wake bool
		beat uint64
	}{
		{"Append", func() { log.Append(plain("x")) }, false, 0},
		{"Wake", log.Wake, true, 0},
		{"Publish", func() { log.Publish(plain("x")) }, true, 0},
		{"Publish of nothing", func() { log.Publish() }, true, 0},
		{"Beat", log.Beat, true, 1},
		{"Expire", func() { log.Expire() }, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			watch, _ := log.Watch(nil)
			read := log.Read(log.Newest().Cursor, nil)
			if isClosed(watch) || isClosed(read.Wake) {
				t.Fatal("woken by nobody")
			}
			tc.do()
			if got := isClosed(watch); got != tc.wake {
				t.Errorf("who watches is woken: %v, want %v", got, tc.wake)
			}
			if got := isClosed(read.Wake); got != tc.wake {
				t.Errorf("who reads is woken: %v, want %v", got, tc.wake)
			}
			_, beat := log.Watch(nil)
			same(t, "the beat", beat, tc.beat)
			same(t, "Batch.Beat", log.Read(0, nil).Beat, tc.beat)
			same(t, "Batch.Beat at the head", log.Read(log.Newest().Cursor, nil).Beat, tc.beat)
		})
	}
}

func TestNoChannelsForNobody(t *testing.T) {
	log := New(roomy)
	first := log.wake
	for range 10 {
		log.Publish(plain("x"))
		log.Append(plain("x"))
		log.Wake()
		log.Beat()
		log.Read(0, nil)
	}
	if log.wake != first {
		t.Fatal("a channel was made though nobody waits")
	}
	log.Watch(nil)
	log.Publish(plain("x"))
	second := log.wake
	if second == first || !isClosed(first) {
		t.Fatal("who watches was not woken")
	}
	log.Publish(plain("x"))
	if log.wake != second {
		t.Fatal("a channel was made though nobody waits any more")
	}
}
