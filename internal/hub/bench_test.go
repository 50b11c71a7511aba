package hub

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Run with: go test -run '^$' -bench . ./internal/hub

var benchLimits = Limits{Events: 1000, Bytes: 4 << 20, Age: 5 * time.Minute}

var benchSizes = []struct {
	name string
	size int
}{
	{"200B", 200},
	{"64KiB", 64 << 10},
}

// benchIDs are made beforehand: making them is the publisher's cost.
var benchIDs = func() []string {
	ids := make([]string, 1<<14)
	for i := range ids {
		ids[i] = strconv.Itoa(100_000 + i)
	}
	return ids
}()

func benchEntry(i, size int) Entry {
	return Entry{Wire: benchWire[:size], ID: benchIDs[i%len(benchIDs)], SetsID: true}
}

var benchWire = make([]byte, 64<<10)

// BenchmarkPublish is the cost of one event. "behind": the readers take nothing,
// as if all were blocked in a write. "saturated": goroutines that follow as fast
// as they can, and are not waited for. "drained": all of them have taken the
// event before the next comes; this is the cost of delivering it to all.
func BenchmarkPublish(b *testing.B) {
	for _, size := range benchSizes {
		for _, readers := range []int{0, 1, 1000, 10_000} {
			for _, mode := range []string{"behind", "saturated", "drained"} {
				if readers == 0 && mode != "behind" {
					continue
				}
				b.Run(fmt.Sprintf("size=%s/subs=%d/%s", size.name, readers, mode), func(b *testing.B) {
					switch mode {
					case "behind":
						benchBehind(b, readers, size.size)
					case "saturated":
						benchFollowed(b, readers, size.size, false)
					case "drained":
						benchFollowed(b, readers, size.size, true)
					}
				})
			}
		}
	}
}

func benchBehind(b *testing.B, readers, size int) {
	log := New(benchLimits)
	held := make([]Batch, readers)
	log.Publish(benchEntry(0, size))
	for i := range held {
		held[i] = log.Read(0, nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		log.Publish(benchEntry(i, size))
		i++
	}
	runtime.KeepAlive(held)
}

func benchFollowed(b *testing.B, readers, size int, drained bool) {
	log := New(benchLimits)
	var pending atomic.Int64
	taken := make(chan struct{}, 1)
	stops := make([]chan struct{}, readers) // each its own, as each client has its own context
	var group sync.WaitGroup
	for i := range stops {
		stop := make(chan struct{})
		stops[i] = stop
		group.Go(func() {
			var cursor Cursor
			for {
				batch := log.Read(cursor, nil)
				switch {
				case batch.Lagged:
					cursor = log.Newest().Cursor
				case len(batch.Bytes) > 0:
					cursor = batch.Next
					if drained && pending.Add(-1) == 0 {
						taken <- struct{}{}
					}
				default:
					select {
					case <-batch.Wake:
					case <-stop:
						return
					}
					continue
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		pending.Store(int64(readers))
		log.Publish(benchEntry(i, size))
		if drained {
			<-taken
		}
		i++
	}
	b.StopTimer()
	for _, stop := range stops {
		close(stop)
	}
	group.Wait()
	if drained {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i)/float64(readers), "ns/delivery")
	}
}

// BenchmarkRead is the cost of taking one batch, for one reader and for many at
// once.
func BenchmarkRead(b *testing.B) {
	for _, entries := range []int{0, 1, 100} {
		log := New(benchLimits)
		for i := range 200 { // so that the next segment has room for a hundred
			log.Publish(benchEntry(i, 200))
		}
		log.ring.newest = nil
		at := log.Newest().Cursor
		for i := range entries {
			log.Publish(benchEntry(i, 200))
		}
		if got := log.Read(at, nil).Next - at; got != Cursor(entries) {
			b.Fatalf("a batch of %d, want %d", got, entries)
		}
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				log.Read(at, nil)
			}
		})
		b.Run(fmt.Sprintf("entries=%d/parallel", entries), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					log.Read(at, nil)
				}
			})
		})
	}
}

// BenchmarkAfter shows that finding the place to resume at does not depend on
// how much the log holds, but for the processor's caches.
func BenchmarkAfter(b *testing.B) {
	for _, entries := range []int{1000, 100_000} {
		log := New(Limits{Events: entries, Bytes: 1 << 30, Age: time.Hour})
		ids := make([]string, entries)
		for i := range ids {
			ids[i] = strconv.Itoa(i)
			log.Append(Entry{Wire: benchWire[:200], ID: ids[i], SetsID: true})
		}
		// A thousand ids all over the log, so that the caches hold them either way.
		ids = spread(ids, 1000)
		b.Run(fmt.Sprintf("history=%d", entries), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := log.After(ids[i]); !ok {
					b.Fatalf("After(%q) found nothing", ids[i])
				}
				if i++; i == len(ids) {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("history=%d/unknown", entries), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := log.After("unknown"); ok {
					b.Fatal("After found what is not there")
				}
			}
		})
	}
}

func spread(ids []string, n int) []string {
	var some []string
	for i := 0; i < len(ids); i += len(ids) / n {
		some = append(some, ids[i])
	}
	return some
}

// BenchmarkMemory reports what a log takes of the heap, and what its events
// take beyond their own bytes.
func BenchmarkMemory(b *testing.B) {
	for _, events := range []int{0, 1, 10, 1000} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			const logs = 100
			for b.Loop() {
				before := heap()
				all := make([]*Log, logs)
				for i := range all {
					all[i] = New(benchLimits)
					for j := range events {
						all[i].Publish(benchEntry(j, 200))
					}
				}
				total := float64(int64(heap()-before)) / logs
				b.ReportMetric(total, "B/log")
				if events > 0 {
					b.ReportMetric(total/float64(events)-200, "overhead-B/event")
				}
				runtime.KeepAlive(all)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
