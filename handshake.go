package ssefanout

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// sessionEvents are the types of events with which a connection is told the name of a
// session of its own: what is posted there is answered, or decides what comes, over this
// connection alone. "endpoint" is that of MCP's HTTP+SSE transport, "PB_CONNECT" that of
// PocketBase.
var sessionEvents = []string{"endpoint", "PB_CONNECT"}

// sessionNames are what other protocols call such a name, in lower case and without
// punctuation. Their first event is a JSON object that has it.
var sessionNames = []string{"clientid", "connectionid", "connid", "sessionid", "sid", "socketid", "subscriberid", "subscriptionid"}

// maxSessionData is how long the data of an event is that is looked at for a name.
const maxSessionData = 64 << 10

// beginsSession reports whether the first event of a connection names a session. With
// upstreams of its own, the operator has said what is shared: only what is certain counts.
func beginsSession(e *sse.Event, wrapping bool) bool {
	return slices.Contains(sessionEvents, string(e.Type)) || wrapping && namesSession(e.Data)
}

// namesSession reports whether data is a JSON object that has the name of a session.
func namesSession(data []byte) bool {
	var object map[string]json.RawMessage
	if len(data) > maxSessionData || len(data) == 0 || data[0] != '{' || json.Unmarshal(data, &object) != nil {
		return false
	}
	for name, value := range object {
		name = strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "", ":", "").Replace(name))
		if slices.Contains(sessionNames, name) && !slices.Contains([]string{"null", `""`, "0"}, string(value)) {
			return true
		}
	}
	return false
}

// newDecoder returns a decoder for the event stream of an answer. The events of
// an answer that begins a session are dropped. decided, which may be nil, is
// called once it is known whether this one does, at the first event with data.
//
// A decompressor calls emit and decided from a goroutine of its own.
func (a *answer) newDecoder(opts *Options, emit func(*sse.Event), decided func(session bool)) *sse.Decoder {
	known := false
	return sse.NewDecoder(int(opts.MaxEventSize), func(e *sse.Event) {
		if e.HasData && !known {
			known = true
			session := beginsSession(e, opts.wrapping)
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
