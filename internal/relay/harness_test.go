package relay

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A script is a source in memory: each call of Follow becomes a call that the test answers.
type script struct {
	calls chan *call
	open  atomic.Int64
	moved atomic.Bool
}

// A call is one call of Follow.
type call struct {
	from Resumption
	sink Sink
	end  chan Outcome
	over chan struct{} // closed when Follow has returned
}

func (s *script) Follow(ctx context.Context, from Resumption, sink Sink) Outcome {
	s.open.Add(1)
	defer s.open.Add(-1)
	c := &call{from: from, sink: sink, end: make(chan Outcome), over: make(chan struct{})}
	defer close(c.over)
	s.calls <- c
	select {
	case out := <-c.end:
		return out
	case <-ctx.Done():
		return Outcome{Err: context.Cause(ctx)}
	}
}

func (*script) Abandoned() int   { return 0 }
func (s *script) Moved() bool    { return s.moved.Load() }
func (*script) LeftBehind() bool { return false }

// accept answers with an event stream.
func (c *call) accept() *call {
	c.sink.Heard()
	if tell := c.sink.Accept(Opening{}); tell != nil {
		tell()
	}
	return c
}

// events sends events with the ids from one number to another.
func (c *call) events(from, to int) *call {
	for n := from; n <= to; n++ {
		c.sink.Event(&sse.Event{HasID: true, ID: fmt.Append(nil, n), HasData: true, Data: fmt.Append(nil, "event ", n)})
	}
	c.sink.Flush()
	synctest.Wait()
	return c
}

// finish ends the stream as it should be.
func (c *call) finish() {
	c.end <- Outcome{Verdict: Stream}
	synctest.Wait()
}

// An indifferent observer.
type indifferent struct{}

func (indifferent) Connected(*Topic, Connected) {}
func (indifferent) Lost(*Topic, Lost)           {}
func (indifferent) Closed(*Topic, Closed)       {}
func (indifferent) Stayed(*Topic, *Outcome)     {}
func (indifferent) Drained(*Topic, *Outcome)    {}
func (indifferent) Refused(*Topic, *Outcome)    {}
func (indifferent) Restricted(*Topic, *Outcome) {}
func (indifferent) CaughtUp(*Topic, CaughtUp)   {}
func (indifferent) Dropped(uint64, int)         {}
func (indifferent) Yielded(*Topic)              {}
func (indifferent) Left(*Subscriber, Left)      {}
func (indifferent) Delivered(time.Duration)     {}
func (indifferent) Retired()                    {}

// A bench is a relay with one source for all of its topics.
type bench struct {
	t testing.TB
	*Relay
	source *script
}

// testConfig is as a handler's without options, without heartbeats.
func testConfig() Config {
	return Config{
		Heartbeat:      -1,
		Words:          []Words{{Heartbeat: []byte(":\n\n"), Gap: []byte(": gap\n\n"), Primer: true}},
		History:        hub.Limits{Events: 1000, Bytes: 4 << 20, Age: 5 * time.Minute},
		Catchups:       2,
		CatchupTimeout: 10 * time.Second,
		BacklogBytes:   64 << 20,
		Linger:         10 * time.Second,
		LingerTopics:   100,
		Wait:           10 * time.Second,
		ReconnectMin:   500 * time.Millisecond,
		ReconnectMax:   30 * time.Second,
		MaxEventSize:   16 << 20,
		MaxTopics:      10000,
		Spread:         10 * time.Second,
	}
}

// newBench returns a relay, which must be left with nothing at the end of the test.
func newBench(t testing.TB, cfg Config) *bench {
	b := &bench{t: t, source: &script{calls: make(chan *call, 2*MaxQueued)}}
	b.Relay = New(cfg, indifferent{}, new(Stats))
	t.Cleanup(func() {
		b.End(Ending{Reason: EndExiting})
		time.Sleep(time.Hour)
		if left := b.Holdings(); left.Topics+left.Subscribers+left.Detached+left.Closing+left.Addresses > 0 {
			t.Errorf("left behind: %+v", left)
		}
		if n := b.source.open.Load(); n > 0 {
			t.Errorf("%d calls of Follow are left", n)
		}
	})
	return b
}

// next returns the next call of Follow, which must have come.
func (b *bench) next() *call {
	b.t.Helper()
	synctest.Wait()
	select {
	case c := <-b.source.calls:
		return c
	default:
		b.t.Fatal("the source was not asked")
		return nil
	}
}

// A carrier that does nothing.
type idle struct{}

func (idle) Hurry() {}
func (idle) Cut()   {}

// join returns the reader of a client that resumes with an id.
func (b *bench) join(address, id string) *Reader {
	b.t.Helper()
	r, rejected, err := b.Join(&Visit{
		Key:     "topic",
		Name:    func() string { return "topic" },
		Open:    func(*Topic) Source { return b.source },
		Claim:   Claim{ID: id},
		Address: address,
	})
	if err != nil || rejected != "" {
		b.t.Fatalf("joining: %v, %s", err, rejected)
	}
	return r
}

// begin serves a reader that was admitted.
func (b *bench) begin(r *Reader) (primer string) {
	b.t.Helper()
	if adm := r.Admit(b.t.Context()); adm.Refusal != nil || adm.Rejected != "" || adm.Barred != nil || adm.Gone {
		b.t.Fatalf("not admitted: %+v", adm)
	}
	r.Enter(idle{})
	return string(r.Begin())
}

// read returns what a reader is told now.
func read(r *Reader) (text string, last Step) {
	synctest.Wait()
	for {
		step := r.Next()
		if step.Kind != Send {
			return text, step
		}
		text += string(step.Words) + string(step.Bytes)
		r.Sent(step)
	}
}

// numbered is events as call.events sends them.
func numbered(from, to int) (text string) {
	for n := from; n <= to; n++ {
		text += fmt.Sprintf("id: %d\ndata: event %d\n\n", n, n)
	}
	return text
}
