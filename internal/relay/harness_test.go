package relay

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
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

// events sends events with the ids from one number to another, and waits until all has
// come of it that does.
func (c *call) events(from, to int) *call {
	c.send(from, to)
	c.sink.Flush()
	synctest.Wait()
	return c
}

// send is events for those that come together with what is sent next: the log has them, and
// nobody is woken yet.
func (c *call) send(from, to int) *call {
	for n := from; n <= to; n++ {
		c.sink.Event(&sse.Event{HasID: true, ID: fmt.Append(nil, n), HasData: true, Data: fmt.Append(nil, "event ", n)})
	}
	return c
}

// unnumbered sends events without ids.
func (c *call) unnumbered(n int) *call {
	for i := range n {
		c.sink.Event(&sse.Event{HasData: true, Data: fmt.Append(nil, "x", i)})
	}
	c.sink.Flush()
	return c
}

// refuse answers with a no.
func (c *call) refuse() {
	c.end <- Outcome{Verdict: No, Status: 410}
	synctest.Wait()
}

// denyID answers with a no to all requests with the id in force that come before the next
// one without.
func (b *bench) denyID() {
	b.t.Helper()
	for range MaxDenials {
		(<-b.source.calls).refuse() // after a backoff
	}
}

// fail breaks.
func (c *call) fail() {
	c.end <- Outcome{Verdict: Stream, Err: io.ErrUnexpectedEOF}
	synctest.Wait()
}

// finish ends the stream as it should be.
func (c *call) finish() {
	c.end <- Outcome{Verdict: Stream}
	synctest.Wait()
}

// An observer takes note of catch-ups, of misfits and of the end, and of nothing else.
type observer struct {
	misfits chan sighted // nil but in the test of misfits
	retired atomic.Bool

	mu     sync.Mutex
	caught []CaughtUp // guarded by mu
}

// sighted is what an observer is told of misfits.
type sighted struct {
	topic  *Topic
	misfit Misfit
	times  uint64
}

func (*observer) Connected(*Topic, Connected) {}
func (*observer) Lost(*Topic, Lost)           {}
func (*observer) Closed(*Topic, Closed)       {}
func (*observer) Stayed(*Topic, *Outcome)     {}
func (*observer) Drained(*Topic, *Outcome)    {}
func (*observer) Refused(*Topic, *Outcome)    {}
func (*observer) Restricted(*Topic, *Outcome) {}
func (o *observer) CaughtUp(_ *Topic, c CaughtUp) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.caught = append(o.caught, c)
}
func (*observer) Dropped(uint64, int)     {}
func (*observer) Yielded(*Topic)          {}
func (*observer) Left(*Subscriber, Left)  {}
func (*observer) Delivered(time.Duration) {}
func (o *observer) Retired()              { o.retired.Store(true) }
func (o *observer) Misfit(t *Topic, m Misfit, times uint64) {
	o.misfits <- sighted{t, m, times}
}

// A bench is a relay with one source for all of its topics.
type bench struct {
	t testing.TB
	*Relay
	source   *script
	observer *observer
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
		Limits:         quota.Limits{Topics: 10000},
		Spread:         10 * time.Second,
	}
}

// newBench returns a relay, which must be left with nothing at the end of the test.
func newBench(t testing.TB, cfg Config) *bench {
	b := &bench{t: t, source: &script{calls: make(chan *call, 2*MaxQueued)}, observer: new(observer)}
	b.Relay = New(cfg, b.observer, new(Stats))
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
