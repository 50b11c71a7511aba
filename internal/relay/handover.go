package relay

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A Handover is a client that needs nothing but its log from now on.
type Handover struct {
	Log    *hub.Log
	Cursor hub.Cursor

	// Events and Bytes were delivered before.
	Events, Bytes uint64

	// EndAt is when the client is to end for EndReason, if it is set.
	EndAt     time.Time
	EndReason EndReason
}

// CanHandOver reports whether the client has all that there is, and is not about to end.
func (s *Reader) CanHandOver() bool {
	return len(s.retry) == 0 && s.phase.is(phaseLive) && s.ending == nil
}

// HandOver returns what take needs to go on with a client for which CanHandOver is true.
// If it has taken it over, the client is that carriage's, and the reader is only closed.
func (s *Reader) HandOver(take func(*Handover) (Carriage, error)) error {
	k, err := take(&Handover{
		Log:       s.log,
		Cursor:    s.cursor,
		Events:    s.events.Load(),
		Bytes:     s.bytes.Load(),
		EndAt:     s.endAt,
		EndReason: s.reason,
	})
	if err != nil {
		return err
	}
	s.log.Unwait(s.wake)
	s.on(phaseHandsOver)
	s.carried.Store(&k)
	s.reader.Store(nil)
	if s.deleted.Load() {
		k.End(EndDeleted)
	}
	return nil
}

// TakeBack makes a reader of a client again that was handed over: h is where it is. The
// client is the reader's from then on. Its Carriage may still be asked for its progress, or
// told to end the client, for a moment: then it is to call End of the subscriber.
func (s *Subscriber) TakeBack(h *Handover, carrier Carrier) *Reader {
	r := &Reader{
		Subscriber: s,
		carrier:    carrier,
		timer:      time.NewTimer(time.Hour),
		joined:     h.Cursor,
		endAt:      h.EndAt,
		reason:     h.EndReason,
	}
	r.events.Store(h.Events)
	r.bytes.Store(h.Bytes)
	r.on(phaseTakesBack)
	r.log, r.cursor, r.beat = h.Log, h.Cursor, h.Log.Look(h.Cursor).Beat
	r.start.Store(uint64(h.Cursor) - h.Events) // may wrap around
	s.reader.Store(r)
	s.carried.Store(nil)
	return r
}

// Took counts what a Carriage has delivered, up to a cursor. since is when the first of it
// was published.
func (s *Subscriber) Took(events, bytes uint64, at hub.Cursor, since time.Time) {
	s.topic.CountDelivery(events, bytes)
	if (uint64(at)+s.number)%DeliverySample == 0 && !since.Before(s.started) {
		s.topic.relay.observer.Delivered(time.Since(since))
	}
}
