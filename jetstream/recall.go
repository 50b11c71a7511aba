package jetstream

import (
	"context"
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A recall reads what the stream has behind an id. That may be more than the topic's log has:
// each has bounds of its own.
type recall struct {
	source *source
	sink   relay.Sink
	id     string // behind which events are given to the sink

	order order
	parts assembler
	found bool
}

// run gives the sink what follows the id until ctx ends. It returns before that if the stream
// does not have the id, or, with the id of the newest event that it has given, where the
// stream is not to be followed: events are missing there, or the origin has begun anew.
func (r *recall) run(ctx context.Context) {
	s := r.source
	reading, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	f := newFeed(s.fleet.store, s.subject)
	helpers.Go(func() { f.run(reading) })
	looking, cancel := context.WithTimeout(ctx, s.fleet.store.settings.Lease)
	defer cancel()
	given := false
	for {
		over := looking.Done()
		if r.found {
			over = ctx.Done()
		}
		select {
		case <-over:
			return
		case d := <-f.out:
			if !r.take(&d) {
				return
			}
			if given = given || r.found; given && d.caughtUp {
				r.sink.Flush()
			}
		}
	}
}

// take takes what the feed has read. It reports whether to go on.
func (r *recall) take(d *delivery) bool {
	m := &d.message
	if d.renewed || d.empty {
		return !d.renewed && (r.found || !d.caughtUp)
	}
	if m.kind == kindAsked {
		return r.found || !d.caughtUp
	}
	if d.isStray() {
		return r.found || !d.caughtUp
	}
	counts, missed := r.order.take(m)
	if missed && r.found {
		return false
	}
	if counts && !r.read(m, d.seq) {
		return false
	}
	return r.found || !d.caughtUp
}

// read does what a message says. It reports whether to go on.
func (r *recall) read(m *message, seq uint64) bool {
	switch m.kind {
	case kindMarker:
		r.parts.reset()
	case kindRun:
		return false // an id may name several places
	case kindOpened:
		o, err := decodeOpening(m.body)
		return err == nil && (!o.Gap || !r.found)
	case kindEvent:
		body, err := r.parts.add(m)
		if err != nil {
			return false
		}
		if body != nil {
			return r.event(body, seq)
		}
	default:
	}
	return true
}

func (r *recall) event(body []byte, seq uint64) bool {
	e, err := decodeEvent(body)
	if err != nil {
		return false
	}
	r.source.identify(&e, seq)
	id := relay.TrimBlanks(string(e.ID))
	if !r.found {
		r.found = e.HasID && id == r.id
		if r.found {
			if tell := r.sink.Accept(relay.Opening{}); tell != nil {
				tell()
			}
		}
		return r.found || !e.HasID || !r.source.topic.Has(id) // from there on, the log has the same
	}
	if e.HasID {
		r.id = id
	}
	r.sink.Heard()
	r.sink.Event(&e)
	return true
}
