package relay

import (
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
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

// A beginning is what a connection begins after.
type beginning struct {
	Resumption
	brought bool // by the client that opened the topic: the log must not learn it
}

// next returns what the next connection begins after: the id in force, which the origin
// has given out. No client's id opens a topic, for it may be one to which the origin has
// nothing to send, or not all: who brings one has a catch-up. Without catch-ups, an
// origin with a single worker can serve the one who opens a topic over no other
// connection.
func (f *follower) next() beginning {
	t := f.topic
	if t.opener.ID != "" && !f.doubted && !f.hasBegun.Load() && t.askableID(t.opener.ID) != "" {
		return beginning{t.opener.resumption(), true}
	}
	return beginning{Resumption: Resumption{ID: t.askableID(t.log.Newest().ID)}}
}

// A knowledge is what is known of an id that a client resumes with.
type knowledge int

const (
	idKnown     knowledge = iota // the log has it
	idUnsettled                  // the log has it not, but may when the topic is connected
	idMissing                    // the log has it not, the origin may
	idLost                       // nobody has it
)

// lookup returns the position of a client that resumes with an id, if that is known.
// What is in the log is found whatever it looks like, as it may be a client's again.
func (t *Topic) lookup(brought Claim) (hub.Position, knowledge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pos, ok := t.log.After(brought.ID)
	switch {
	case ok:
		return pos, idKnown
	case t.assigned(brought.ID), !brought.Usable(), t.isBlamed(brought.ID):
		return pos, idLost
	case t.isOpened && brought.ID == t.opener.ID && t.openedAt >= t.log.Oldest().Cursor:
		return hub.Position{Cursor: t.openedAt, ID: brought.ID}, idKnown
	case !t.IsConnected():
		return pos, idUnsettled
	}
	return pos, idMissing
}

// askableID returns id, unless the origin cannot be asked with it.
func (t *Topic) askableID(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !SendableID(id) || t.assigned(id) || t.isBlamed(id) {
		return ""
	}
	return id
}

// isBlamed reports whether the origin has answered with a stream, but not to this id. It is
// believed for BeliefTime: the origin may have been about to start. t.mu must be held.
func (t *Topic) isBlamed(id string) bool {
	return t.blamedID != "" && id == t.blamedID && time.Since(t.blamedSince) < BeliefTime
}

// AssignedPrefix begins every id that is ours. Such an id never goes to the
// origin, whichever topic or process it is from. With an epoch and a sequence
// number it stays far below the 128 bytes beyond which a browser asks for
// permission first (Fetch standard, "CORS-safelisted request-header").
const AssignedPrefix = "sse-fanout:"

// newEpoch tells the ids of one topic from those of every other, and from those
// of the same topic in an earlier life.
func newEpoch() string { return rand.Text()[:12] }

// assign returns the id for the entry at cursor c of an origin that sends none.
func (t *Topic) assign(c hub.Cursor) string {
	return AssignedPrefix + t.epoch + ":" + strconv.FormatUint(uint64(c), 36)
}

// assigned reports whether an id is ours.
func (t *Topic) assigned(id string) bool {
	return t.epoch != "" && strings.HasPrefix(id, AssignedPrefix)
}
