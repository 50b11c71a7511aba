package origin

import (
	"encoding/json"
	"slices"
	"strings"

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
func beginsSession(e *sse.Event, guarded bool) bool {
	return slices.Contains(sessionEvents, string(e.Type)) || guarded && namesSession(e.Data)
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
// an answer that begins a session are dropped. The sink is told once it is known whether
// this one does, at the first event with data.
//
// A decompressor makes it call the sink from a goroutine of its own.
func (a *Answer) newDecoder() *sse.Decoder {
	known := false
	return sse.NewDecoder(int(a.opts.MaxEventSize), func(e *sse.Event) {
		if e.HasData && !known {
			known = true
			session := beginsSession(e, a.opts.Guarded)
			if session {
				a.session.Store(true)
				close(a.refused)
			}
			defer a.sink.Decided(session) // the event is in the log then
		}
		if !a.session.Load() {
			a.sink.Event(e)
		}
	})
}
