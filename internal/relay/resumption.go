package relay

import (
	"strconv"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A knowledge is what is known of an id that a client resumes with.
type knowledge int

const (
	idKnown     knowledge = iota // the log has it
	idUnsettled                  // the log has it not, but may when the topic is connected
	idMissing                    // the log has it not, the origin may
	idLost                       // nobody has it
)

// Has reports whether a client can resume behind an id with what the log has.
func (t *Topic) Has(id string) bool {
	_, known := t.log.After(id)
	return known
}

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

// MayFetch reports whether the origin may be asked for what follows an id, beside the shared
// connection.
func (t *Topic) MayFetch(id string) bool { return t.relay.cfg.Catchups >= 0 && t.askableID(id) != "" }

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

// assign returns the id for the entry at cursor c of an origin that sends none.
func (t *Topic) assign(c hub.Cursor) string {
	return AssignedPrefix + t.epoch + ":" + strconv.FormatUint(uint64(c), 36)
}

// assigned reports whether an id is ours.
func (t *Topic) assigned(id string) bool {
	return t.epoch != "" && strings.HasPrefix(id, AssignedPrefix)
}
