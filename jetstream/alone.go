package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

var errReturned = errors.New("JetStream is back")

// alone asks the origin without the fleet, until JetStream is back.
func (f *following) alone(why error) relay.Outcome {
	if !f.isApart {
		f.isApart = true
		f.fleet.fallen(f.source, why)
	}
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer context.AfterFunc(f.call, func() { cancel(context.Cause(f.call)) })()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		f.await(ctx, func() { cancel(errReturned) })
	}()
	out := f.origin.Follow(ctx, f.from, f.sink)
	returned := f.call.Err() == nil && errors.Is(context.Cause(ctx), errReturned)
	cancel(nil)
	<-watched
	if returned {
		return again
	}
	return out
}

// await calls back when JetStream can be used again.
func (f *following) await(ctx context.Context, back func()) {
	for {
		v := f.contest.look()
		pause := time.Until(f.shunned)
		if !v.away && pause <= 0 {
			back()
			return
		}
		timer := time.NewTimer(max(pause, time.Millisecond))
		expired := timer.C
		if pause <= 0 {
			expired = nil
		}
		select {
		case <-ctx.Done():
		case <-v.changed:
		case <-expired:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (f *following) isAway() bool { return f.contest.look().away || time.Now().Before(f.shunned) }

// abdicate ends what a holder of the lease does, if this node is one.
func (f *following) abdicate(why error) {
	if f.lead != nil {
		f.lead.close(why)
		f.lead = nil
	}
}

// pause ends the connection to the origin, if this node has it. It keeps the lease, unless
// the topic is over.
func (f *following) pause(why error) {
	if f.lead != nil {
		f.lead.silence(why)
	}
}
