package direct_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A void network takes everything.
type void struct{ closed chan struct{} }

func (void) Add(int32, uint32) error             { return nil }
func (void) Send(_ int32, p []byte) (int, error) { return len(p), nil }
func (void) Held(int32) int                      { return 0 }
func (void) Shut(int32)                          {}

func (void) SendAll(_ []int32, p []byte, sent []int32) {
	for i := range sent {
		sent[i] = int32(len(p))
	}
}

func (v void) Wait([]direct.Event) (int, error) {
	<-v.closed
	return 0, fmt.Errorf("closed")
}

func (v void) Close() error {
	close(v.closed)
	return nil
}

// A counted stream says when all of its clients have an event.
type counted struct {
	log   *hub.Log
	taken chan int
}

func (*counted) Ending() (none direct.Ending, now bool)     { return none, false }
func (c *counted) Delivered(clients int, _ direct.Delivery) { c.taken <- clients }
func (*counted) Beaten(int)                                 {}
func (*counted) Heartbeat() []byte                          { return []byte(":\n\n") }
func (*counted) Gap() []byte                                { return []byte(": gap\n\n") }

type nobody struct{}

func (nobody) Farewell(direct.Reason) []byte       { return nil }
func (nobody) Ended(direct.Reason, uint64, uint64) {}

// newRound returns what delivers one event to a number of clients, and waits until
// all have it.
func newRound(tb testing.TB, clients int) func() {
	w := direct.NewWriter(direct.Options{Timeout: time.Minute, Network: func() (direct.Network, error) {
		return void{make(chan struct{})}, nil
	}})
	s := &counted{log: hub.New(hub.Limits{Events: 1000, Bytes: 1 << 20, Age: time.Hour}), taken: make(chan int, clients)}
	for i := range clients {
		k, err := w.Take(&direct.Handover{FD: i, Client: nobody{}, Stream: s, Log: s.log})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { k.End("over") })
	}
	tb.Cleanup(w.Close)
	entry := hub.Entry{Wire: []byte("id: 1\ndata: " + string(make([]byte, 180)) + "\n\n")}
	return func() {
		s.log.Publish(entry)
		for left := clients; left > 0; {
			left -= <-s.taken
		}
	}
}

func TestDeliveringAllocatesNothing(t *testing.T) {
	round := newRound(t, 1000)
	for range 2000 {
		round() // until the log is full
	}
	// A segment of the log now and then, for 300 events.
	if n := testing.AllocsPerRun(1000, round); n > 0.5 {
		t.Errorf("an event for 1,000 clients takes %v allocations", n)
	}
}

// BenchmarkDeliver is what a shard costs beside the kernel's sends.
func BenchmarkDeliver(b *testing.B) {
	for _, clients := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			round := newRound(b, clients)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(clients), "ns/delivery")
		})
	}
}
