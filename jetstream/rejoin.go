package jetstream

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// Where a topic goes on in the stream, if it does not just read on: it was apart and has had
// events that the stream is yet to get, or the stream was made anew.

// rejoin begins to read the stream behind what the topic has. While it was apart, the topic
// has got events that the stream may have, or is to get.
func (f *following) rejoin() {
	if f.lead != nil && f.lead.inner != nil {
		f.lead.inner.sink.Store(&f.sink)
	}
	if !f.isApart || f.isAway() {
		return
	}
	f.fleet.returned(f.source)
	f.isApart, f.caughtUp, f.skipTo, f.skipAll = false, false, "", false
	f.generation = f.feed.restart()
	switch f.from.ID {
	case "":
		// Nothing tells which of the events in the stream the topic has had.
		f.skipAll, f.gap = f.eventful, f.eventful
	case f.lastID:
	default:
		f.skipBehind(f.from.ID)
		f.unplaced = f.gap
	}
}

// compare decides how the stream follows on what the topic has, where it was made anew, or the
// topic is ahead of it. What comes next is what the origin had behind an id, if that is known.
func (f *following) compare(id string) {
	wasRenewed := f.renewed
	f.renewed = false
	switch {
	case id != "" && id == f.from.ID:
		f.gap, f.skipTo = false, ""
	case id != "" && f.from.ID != "" && f.topic.Has(id):
		f.gap = false
		f.skipBehind(f.from.ID)
	default:
		f.gap, f.unplaced = true, true
		if wasRenewed {
			f.skipTo = ""
		}
	}
}

// place finds out by the next event of the stream that has an id whether the topic is ahead: if
// it has that, it has what comes up to its own last event.
func (f *following) place(e *sse.Event, id string) {
	if !f.unplaced || !e.HasID {
		return
	}
	if f.from.ID != "" && f.topic.Has(id) {
		f.gap, f.unplaced = false, false
		f.skipBehind(f.from.ID)
	}
}

// skipTime is for how long events of the stream may come without the one where the topic is.
const skipTime = 10 * time.Second

// skipBehind makes the topic be given what comes behind an id.
func (f *following) skipBehind(id string) { f.skipTo, f.skipUntil = id, time.Time{} }

// giveUp gives up to wait for the id behind which the stream has what the topic has not, if
// events have come without it for long enough, and the next one has another id, too.
func (f *following) giveUp(id string) {
	switch {
	case f.skipTo == "", f.skipTo == id, !f.caughtUp:
	case f.skipUntil.IsZero():
		// Not before: the stream may have got nothing for long.
		f.skipUntil = time.Now().Add(skipTime)
	case time.Now().After(f.skipUntil):
		f.skipTo, f.gap = "", true
	}
}

// skips reports whether the topic has an event already.
func (f *following) skips(e *sse.Event, id string) bool {
	switch {
	case f.skipAll && !f.caughtUp:
		return true
	case f.skipTo == "":
		f.skipAll = false
		return false
	case e.HasID && id == f.skipTo:
		f.skipTo, f.gap = "", false // what is missing before it, the topic has had
	}
	return true
}
