package sse

import (
	"errors"
	"strings"
	"time"
)

// ErrEventTooLarge is returned by [Decoder.Write] once a line or an event has
// passed the decoder's limit.
var ErrEventTooLarge = errors.New("event too large")

// Event is one block of an event stream. The slices of an Event given to a
// decoder's emit function are valid only until that function returns.
type Event struct {
	ID    []byte        // valid if HasID; may be empty: an empty id resets
	Type  []byte        // the event field; empty means "message"
	Data  []byte        // the data lines joined by LF, without the trailing one; valid if HasData
	Retry time.Duration // the reconnection time; valid if HasRetry

	// HasData is also set by a single empty data line, which dispatches an event
	// with empty data.
	HasID, HasData, HasRetry bool
}

// Valid reports whether text can stand in a field or a comment as it is: it has
// no CR or LF, which would end the line and let the rest pass for fields of its
// own, and no NUL, for which an id is ignored.
func Valid(text string) bool {
	return !strings.ContainsAny(text, "\r\n\x00")
}
