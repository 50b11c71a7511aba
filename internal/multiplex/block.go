package multiplex

import (
	"bytes"
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
)

// A block is one block of an event stream in the form that sse.Append gives it.
type block struct {
	id    []byte
	hasID bool
	typ   []byte
	data  []byte // its lines, with their ends; empty if it is no event
	gap   bool   // events may be missing in front of it
	retry time.Duration
}

// nextBlock returns the first block of wire and what is behind it. A block that lacks its
// end is none.
func nextBlock(wire []byte) (b block, rest []byte) {
	for len(wire) > 0 {
		end := bytes.IndexByte(wire, '\n')
		if end < 0 {
			return block{}, nil
		}
		line := wire[:end]
		switch {
		case end == 0:
			return b, wire[1:]
		case bytes.HasPrefix(line, []byte("data: ")):
			// Data lines come last, so the next empty line is the end.
			size := bytes.Index(wire, []byte("\n\n"))
			if size < 0 {
				return block{}, nil
			}
			b.data = wire[:size+1]
			return b, wire[size+2:]
		case bytes.HasPrefix(line, []byte("id: ")):
			b.id, b.hasID = line[len("id: "):], true
		case bytes.HasPrefix(line, []byte("event: ")):
			b.typ = line[len("event: "):]
		case bytes.HasPrefix(line, []byte("retry: ")):
			if ms, err := strconv.ParseInt(string(line[len("retry: "):]), 10, 32); err == nil {
				b.retry = time.Duration(ms) * time.Millisecond
			}
		case string(line) == ": "+audience.GapComment:
			b.gap = true
		}
		wire = wire[end+1:]
	}
	return block{}, nil
}

// The types of the events by which a connection tells of its streams, each behind
// "<alias>/".
const (
	openType  = "open"  // the stream has begun; data: {}
	gapType   = "gap"   // events may be missing here; data: {}
	endType   = "end"   // the stream has ended and is asked for again; data: {"retry":<milliseconds>}
	errorType = "error" // the stream is refused, for good; data: {"status":<HTTP status>}
)

// escapeSign is put in front of a type of the origin's that could be taken for one of those
// above, and of one that begins with it.
const escapeSign = '~'

// appendType appends the line that names the type of an event.
func appendType(b []byte, alias string, typ []byte) []byte {
	b = append(append(append(b, "event: "...), alias...), '/')
	switch string(typ) {
	case "":
		return append(b, "message\n"...)
	case openType, gapType, endType, errorType:
		b = append(b, escapeSign)
	default:
		if typ[0] == escapeSign {
			b = append(b, escapeSign)
		}
	}
	return append(append(b, typ...), '\n')
}
