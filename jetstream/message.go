package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A message on the subject of a topic has one header, which says what it is and where it
// stands, and a body by its kind. All that is published of a topic is on one subject, so
// that the stream gives it one order.

// header names the header of a message. Its value is
//
//	<version> <kind> <term>.<revision> <index> <acked> <part>/<parts>
const header = "Sse-Fanout"

// version changes when older nodes would misread newer messages. They ignore those.
const version = "1"

// A kind is what a message is. It is a letter from a to z.
type kind byte

const (
	// kindMarker begins an epoch. Its body is the name of the holder's node.
	kindMarker kind = 'm'
	// kindResumed is the second message of an epoch. The holder has read the stream up to its
	// marker: the body is the place to which the messages before it count.
	kindResumed kind = 'r'
	// kindOpened: the origin has answered with an event stream. The body is an opening.
	kindOpened kind = 'o'
	// kindBegun: the connection has begun with an event, which may be one that the stream has
	// already. The body is a relay.RunStart.
	kindBegun kind = 'b'
	// kindRun: the origin begins its stream anew. There is no body.
	kindRun kind = 'n'
	// kindEvent: the body is an event, or a part of one.
	kindEvent kind = 'e'
	// kindEnded: the connection to the origin has ended. The body is an outcome.
	kindEnded kind = 'x'
	// kindLeft: the holder has given up its lease.
	kindLeft kind = 'l'
	// kindAsked: a node cannot tell from what the stream has whether there is a connection to
	// the origin. It is the only message that does not come from a holder, and never counts.
	kindAsked kind = 'q'
	// kindStands is the holder's answer to that: the body is the opening of the connection, or
	// empty if there is none.
	kindStands kind = 's'
)

// firstIndex is that of the first message of an epoch that has no fixed place.
const firstIndex = 2

// An epoch is a time in which one holder publishes. Leases have revisions that grow with
// each holder and each renewal. The term is when the stream was made, in Unix nanoseconds, and
// grows when the bucket of leases was made anew and its revisions begin at 1 again.
type epoch struct{ term, revision uint64 }

// less reports whether e is older than o.
func (e epoch) less(o epoch) bool {
	return e.term < o.term || e.term == o.term && e.revision < o.revision
}

func (e epoch) String() string {
	return strconv.FormatUint(e.term, 10) + "." + strconv.FormatUint(e.revision, 10)
}

// A message is one message on the subject of a topic.
type message struct {
	kind  kind
	epoch epoch
	index uint64 // within the epoch, from 0, which is its marker's, without holes
	acked uint64 // the stream is known to have all messages of the epoch before this index
	part  int    // of an event whose parts are messages of their own, from 1
	parts int
	body  []byte
}

// encode returns m as a message of NATS.
func (m *message) encode(subject string) *nats.Msg {
	value := fmt.Sprintf("%s %c %s %d %d %d/%d", version, m.kind, m.epoch, m.index, m.acked, m.part, m.parts)
	return &nats.Msg{Subject: subject, Header: nats.Header{header: {value}}, Data: m.body}
}

var (
	errNotOurs = errors.New("it has no header " + header)
	errVersion = errors.New("it is of another version of sse_fanout")
	errMessage = errors.New("its header " + header + " is not well-formed")
)

// decodeMessage is the inverse of encode. The body stays the NATS message's.
func decodeMessage(h nats.Header, body []byte) (message, error) {
	values := h[header]
	if len(values) != 1 {
		return message{}, errNotOurs
	}
	fields := strings.Split(values[0], " ")
	if fields[0] != version {
		return message{}, fmt.Errorf("%w: %.20q", errVersion, fields[0])
	}
	if len(fields) != 6 || len(fields[1]) != 1 {
		return message{}, errMessage
	}
	m := message{kind: kind(fields[1][0]), body: body}
	if m.kind < 'a' || m.kind > 'z' {
		return message{}, errMessage
	}
	term, revision, _ := strings.Cut(fields[2], ".")
	part, parts, _ := strings.Cut(fields[5], "/")
	numbers := [6]uint64{}
	for i, text := range []string{term, revision, fields[3], fields[4], part, parts} {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return message{}, errMessage
		}
		numbers[i] = n
	}
	m.epoch, m.index, m.acked = epoch{numbers[0], numbers[1]}, numbers[2], numbers[3]
	if numbers[4] == 0 || numbers[4] > numbers[5] || numbers[5] > maxParts {
		return message{}, errMessage
	}
	m.part, m.parts = int(numbers[4]), int(numbers[5])
	if (m.kind == kindMarker) != (m.index == 0) || (m.kind == kindResumed) != (m.index == 1) ||
		m.acked > m.index || m.parts > 1 && m.kind != kindEvent {
		return message{}, errMessage
	}
	return m, nil
}

// maxParts bounds what a reader believes of a message's header.
const maxParts = 1 << 20

// What an encoded event has, in its first byte.
const (
	flagID    = 1 << iota // the length of the id and the id
	flagRetry             // the reconnection time in milliseconds
	flagData              // the data, which are all that follows the type
)

// appendEvent appends the encoded form of e to dst.
func appendEvent(dst []byte, e *sse.Event) []byte {
	var flags byte
	if e.HasID {
		flags |= flagID
	}
	if e.HasRetry {
		flags |= flagRetry
	}
	if e.HasData {
		flags |= flagData
	}
	dst = append(dst, flags)
	if e.HasID {
		dst = binary.AppendUvarint(dst, uint64(len(e.ID)))
		dst = append(dst, e.ID...)
	}
	if e.HasRetry {
		dst = binary.AppendUvarint(dst, uint64(max(0, e.Retry.Milliseconds())))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Type)))
	dst = append(dst, e.Type...)
	if e.HasData {
		dst = append(dst, e.Data...)
	}
	return dst
}

var errEvent = errors.New("it is not a well-formed event")

// decodeEvent is the inverse of appendEvent. The slices of the event are those of body.
func decodeEvent(body []byte) (e sse.Event, err error) {
	if len(body) == 0 || body[0] >= flagData<<1 {
		return e, errEvent
	}
	flags, rest := body[0], body[1:]
	e.HasID, e.HasRetry, e.HasData = flags&flagID != 0, flags&flagRetry != 0, flags&flagData != 0
	ok := true
	if e.HasID {
		e.ID, rest, ok = cutText(rest)
	}
	if ok && e.HasRetry {
		n, size := binary.Uvarint(rest)
		if ok = size > 0 && n <= maxRetryMillis; ok {
			e.Retry, rest = time.Duration(n)*time.Millisecond, rest[size:]
		}
	}
	if ok {
		e.Type, rest, ok = cutText(rest)
	}
	if !ok || !e.HasData && len(rest) > 0 {
		return sse.Event{}, errEvent
	}
	if e.HasData {
		e.Data = rest
	}
	return e, nil
}

// maxRetryMillis is the longest reconnection time that a time.Duration can hold.
const maxRetryMillis = uint64((1<<63 - 1) / time.Millisecond)

// cutText cuts a text and its length off b.
func cutText(b []byte) (text, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}
