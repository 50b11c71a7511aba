package relay

import (
	"context"
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// An inflow is one call of Source.Follow, in a goroutine of its own: what a connection, which
// feeds the topic's log, and a fetch of a catch-up have in common. Either embeds one, is its
// sink, and waits for its end. What that means is for follower.run or catchup.pursue to say.
type inflow struct {
	topic *Topic
	from  Resumption
	idle  time.Duration // how long the source may be silent; 0: without bound

	cancel      context.CancelCauseFunc
	watchdog    *time.Timer   // nil without idle
	established chan struct{} // closed by the sink's Accept: the origin has answered with an event stream
	ended       chan struct{} // closed when outcome is set
	outcome     Outcome

	// accepted is when the origin has answered so. It is owned by the goroutine that feeds
	// the sink, then by who waits for the end.
	accepted time.Time
}

func newInflow(t *Topic, from Resumption, idle time.Duration) inflow {
	return inflow{
		topic:       t,
		from:        from,
		idle:        idle,
		established: make(chan struct{}),
		ended:       make(chan struct{}),
	}
}

// start calls Follow. Topic.helpers waits for it.
func (f *inflow) start(ctx context.Context, sink Sink) {
	ctx, f.cancel = context.WithCancelCause(ctx)
	if f.idle > 0 {
		f.watchdog = time.AfterFunc(f.idle, func() { f.cancel(ErrIdle) })
	}
	f.topic.helpers.Go(func() {
		defer close(f.ended)
		defer f.cancel(nil)
		if f.watchdog != nil {
			defer f.watchdog.Stop()
		}
		f.outcome = f.topic.source.Follow(ctx, f.from, sink)
		stats := f.topic.relay.stats
		if f.wasAccepted() { // nothing is, any more
			stats.Connections.Add(-1)
		}
		if sink.Shared() && errors.Is(f.outcome.Err, sse.ErrEventTooLarge) {
			stats.Oversized.Add(1)
		}
	})
}

// stop cancels the call, and waits for its end.
func (f *inflow) stop(cause error) {
	f.cancel(cause)
	<-f.ended
}

// Heard implements Sink.
func (f *inflow) Heard() {
	if f.watchdog != nil {
		f.watchdog.Reset(f.idle)
	}
}

// accept is for the sink's Accept to begin with.
func (f *inflow) accept() {
	f.accepted = time.Now()
	f.topic.relay.stats.Connections.Add(1)
}

func (f *inflow) wasAccepted() bool { return !f.accepted.IsZero() }

// wasEstablished reports whether the origin has answered with an event stream, to whoever
// asks while the source may still feed the sink.
func (f *inflow) wasEstablished() bool { return isClosed(f.established) }

// hasEnded reports whether the outcome is known.
func (f *inflow) hasEnded() bool { return isClosed(f.ended) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
