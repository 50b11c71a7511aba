package relay

import (
	"crypto/rand"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// The ids of the origin are strings, and are in force in a topic's log, which learns
// them from events and in no other way. The id of a client is a claim: it is looked up
// in the log, and sent to the origin in requests that are made for those who bring
// it, and it never gets into a topic's log.

// A Claim is the last event id that a client brings. It may be made up: only the log
// and the origin can tell. The zero Claim is that of a client that brings none.
type Claim struct {
	ID    string // without blanks around it (see TrimBlanks)
	Param string // the query parameter of IDParams that the client uses, if it uses one
}

// IDParams are the query parameters in which polyfills (Yaffle's EventSource) and hubs
// (Mercure, nchan) put the last event id, as a page cannot set a header on its first
// connection.
var IDParams = map[string]bool{
	"lastEventId":   true,
	"lastEventID":   true,
	"last_event_id": true,
	"Last-Event-ID": true,
}

// MaxLastEventID is the longest id of a client that the origin is asked with, in
// bytes. Servers bound a header field at 8 KiB and more.
const MaxLastEventID = 4 << 10

// Usable reports whether the origin can be asked with the id.
func (c Claim) Usable() bool { return len(c.ID) <= MaxLastEventID && SendableID(c.ID) }

// resumption returns what a request made for c resumes with.
func (c Claim) resumption() Resumption { return Resumption(c) }

// A Resumption is what a request to the origin resumes with: an id in the header
// Last-Event-ID and, if Param is set, in the query parameter of that name as well.
// Without an id, it begins wherever the origin begins.
type Resumption struct{ ID, Param string }

// SendableID reports whether an id can be the value of a header field; if not,
// the request would never leave.
func SendableID(id string) bool {
	return id != "" && strings.IndexFunc(id, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// TrimBlanks takes away what HTTP takes away from around the value of a header field.
// An id that differs from another in nothing else cannot be told from it.
func TrimBlanks(id string) string { return strings.Trim(id, " \t") }

// eventID returns the id that an event sets, as a client can bring it. It is empty if
// none can: a client with a header that large gets no answer.
func eventID(e *sse.Event) string {
	if len(e.ID) > MaxPosition {
		return ""
	}
	return TrimBlanks(string(e.ID))
}

// AssignedPrefix begins every id that is ours. Such an id never goes to the
// origin, whichever topic or process it is from. With an epoch and a sequence
// number it stays far below the 128 bytes beyond which a browser asks for
// permission first (Fetch standard, "CORS-safelisted request-header").
const AssignedPrefix = "sse-fanout:"

// newEpoch tells the ids of one topic from those of every other, and from those
// of the same topic in an earlier life.
func newEpoch() string { return rand.Text()[:12] }

// MaxPosition is the longest id that a client is told as its position, besides with its
// event: a longer one cannot come back, as net/http takes no header that large by default.
const MaxPosition = 1 << 20
