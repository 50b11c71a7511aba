package jetstream

import (
	"fmt"
	"strconv"
	"strings"
)

// An order tells which messages of a topic count, from nothing but the messages in the
// order of the stream. So all nodes that read the same messages come to the same result.
//
// A holder publishes without waiting. Three things can go wrong with that, and the order
// finds them:
//
//   - A holder does not know that its lease is over. The next one publishes a marker of a
//     higher epoch, reads the stream up to it, and has the origin send what follows. So
//     whatever has a lower epoch after that marker is ignored.
//   - The stream has lost a message and stored those that were sent after it, because the
//     leader of the stream has changed. Their indexes have a hole, and what stands behind
//     it is ignored. The holder is told of the loss, and publishes the same again in a new
//     epoch.
//   - A reader was away for longer than the stream keeps messages. This is a hole, too, but
//     the holder knows that the messages in it were stored, and says so in later ones. The
//     reader has missed them, and goes on behind the hole.
//
// A reader that begins cannot tell whether its first messages count if the stream has the
// marker no more that would say so: they may stand behind a loss, or be a stale holder's. It
// takes them for the holder's, and this is left as it is:
//
//   - Nothing is lost unseen. What it reads next has a higher epoch without a marker, or tells
//     of another place: either is a gap.
//   - An event can be in the log of that node twice, at its very beginning: once as the stale
//     holder has published it, and once as the next holder has. A client that resumes goes on
//     behind the newer, which has all that follows. Only one that begins with the oldest
//     history there is (first_event oldest) gets it twice, before that is too old.
//
// To know better, a reader would have to hold its first messages back until a marker comes,
// which may be never.
type order struct {
	at     place // behind the last message that counts
	before place // what at was when the last marker came that follows anything else
	known  bool  // a message has come
}

// A place is one between two messages of a topic.
type place struct {
	epoch epoch
	next  uint64 // the index in the epoch of the message behind it
}

func (p place) String() string { return p.epoch.String() + " " + strconv.FormatUint(p.next, 10) }

// parsePlace is the inverse of place.String.
func parsePlace(text string) (p place, err error) {
	var numbers [3]uint64
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == '.' || r == ' ' })
	if len(fields) != len(numbers) {
		return p, fmt.Errorf("%w: %.40q is no place", errMessage, text)
	}
	for i, field := range fields {
		if numbers[i], err = strconv.ParseUint(field, 10, 64); err != nil {
			return p, fmt.Errorf("%w: %.40q is no place", errMessage, text)
		}
	}
	return place{epoch{numbers[0], numbers[1]}, numbers[2]}, nil
}

// take reports whether the next message of the stream counts, and whether messages before
// it are missing that counted.
func (o *order) take(m *message) (counts, missed bool) {
	switch {
	case !o.known:
		o.known = true
		o.follow(m)
		return true, false
	case m.epoch.less(o.at.epoch):
		return false, false // a stale holder's
	case o.at.epoch.less(m.epoch):
		if m.kind == kindMarker && o.at.next > 1 {
			o.before = o.at
		}
		o.follow(m)
		return true, m.kind != kindMarker // its marker is gone
	case m.index < o.at.next:
		return false, false // stored twice
	case m.index > o.at.next:
		if m.acked <= o.at.next {
			return false, false // it stands behind a loss
		}
		o.follow(m)
		return true, true
	}
	o.follow(m)
	return true, m.kind == kindResumed && o.lacks(m)
}

// lacks reports whether the holder has read messages before its marker that this reader
// has not.
func (o *order) lacks(m *message) bool {
	told, _, err := decodeResumed(m.body)
	return err != nil || o.before != place{} && told != o.before
}

// follow makes m the message that was read last.
func (o *order) follow(m *message) { o.at = place{m.epoch, m.index + 1} }
