package ssefanout

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// sessionEvent is the type of the event with which MCP's HTTP+SSE transport
// begins each connection. Its data is a URL that names a session, and answers to
// what is posted there come over this connection alone.
const sessionEvent = "endpoint"

// newDecoder returns a decoder for the event stream of an answer. The events of
// an answer that begins a session are dropped. decided, which may be nil, is
// called once it is known whether this one does, at the first event with data.
//
// A decompressor calls emit and decided from a goroutine of its own.
func (a *answer) newDecoder(maxEvent int, emit func(*sse.Event), decided func(session bool)) *sse.Decoder {
	known := false
	return sse.NewDecoder(maxEvent, func(e *sse.Event) {
		if e.HasData && !known {
			known = true
			session := string(e.Type) == sessionEvent
			if session {
				a.session.Store(true)
				close(a.refused)
			}
			if decided != nil {
				defer decided(session) // the event is in the log then
			}
		}
		if !a.session.Load() {
			emit(e)
		}
	})
}

// handshakeTime is how long the clients of a new topic of the wrapping form wait
// for the first event, which tells whether it begins a session.
const handshakeTime = 300 * time.Millisecond

// decide is called when the first event of a connection has told whether it
// begins a session.
func (t *topic) decide(session bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.personal = t.personal || session
	t.trusted = !t.personal
	t.eventful = t.eventful || !session
	t.signal()
}

// trustSilent trusts a stream that has not begun with an event.
func (t *topic) trustSilent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.personal && !t.trusted {
		t.trusted = true
		t.signal()
	}
}
