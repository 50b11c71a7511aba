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
