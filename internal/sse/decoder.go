package sse

import (
	"bytes"
	"math"
	"time"
	"unicode/utf8"
)

// maxIdleBuffer is the capacity above which a buffer is given back at the end of
// the block that made it grow, so that one huge event does not cost its size for
// as long as the stream lasts. It has room for a line of 64 KiB.
const maxIdleBuffer = 128 << 10

const byteOrderMark = "\xEF\xBB\xBF"

// Decoder splits an event stream into events. It is an [io.Writer], since in a
// proxy the source pushes. Its bytes may be cut anywhere: the events are the
// same. It is not safe for concurrent use.
//
// Memory is bounded by a small multiple of the limit given to [NewDecoder], and
// between events by 128 KiB for each of four buffers. Comments and unknown
// fields are never copied. An event that lies within one Write, with a single
// data line in valid UTF-8, is not copied either.
type Decoder struct {
	maxEvent int
	emit     func(*Event)

	bomSeen int   // how many bytes of the byte order mark have been seen; all of it once it is decided
	afterCR bool  // the last line ended in CR, so a LF that comes next belongs to it
	err     error // for ever, until Reset

	// The line begun in an earlier Write, if lineLen > 0.
	lineLen int    // its length so far
	ignored bool   // it is a comment or an unknown field: only its length counts
	line    []byte // its bytes so far, unless ignored

	// The block so far.
	event         Event
	id, typ, data value
}

// NewDecoder returns a decoder for one stream, which calls emit for each block
// with data, an id or a reconnection time, in the Write that brings the end of
// its blank line. No line, and no event's id, type and data together, may have
// more than maxEvent bytes.
func NewDecoder(maxEvent int, emit func(*Event)) *Decoder {
	return &Decoder{maxEvent: maxEvent, emit: emit}
}

// Reset makes d ready for a new stream: a byte order mark may come again, and an
// unfinished block of the old stream is forgotten. The limit and the emit
// function stay.
func (d *Decoder) Reset() {
	d.endBlock()
	d.bomSeen, d.afterCR, d.err = 0, false, nil
	d.lineLen, d.ignored, d.line = 0, false, d.line[:0]
}

// Write decodes p and emits the events that it completes. Once a limit is
// passed it returns [ErrEventTooLarge], from then on for every call. The events
// before that have been emitted.
func (d *Decoder) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	i := d.skipByteOrderMark(p)
	ends := newLineEnds()
	for i < len(p) {
		if d.afterCR {
			d.afterCR = false
			if p[i] == '\n' {
				i++
				continue
			}
		}
		end := ends.next(p, i)
		if end == len(p) {
			break
		}
		if err := d.endLine(p[i:end]); err != nil {
			return i, d.fail(err)
		}
		// A CR ends its line at once: to wait and see whether a LF follows would
		// hold the event back until the next one.
		d.afterCR = p[end] == '\r'
		i = end + 1
	}

	// Both p and d.line, from which values are borrowed, are about to change.
	d.id.keep()
	d.typ.keep()
	d.data.keep()
	if err := d.addToLine(p[i:]); err != nil {
		return i, d.fail(err)
	}
	return len(p), nil
}

// skipByteOrderMark returns how many bytes at the beginning of p belong to the
// byte order mark of the stream, which may come in parts.
func (d *Decoder) skipByteOrderMark(p []byte) int {
	for i := range p {
		if d.bomSeen == len(byteOrderMark) {
			return i
		}
		if p[i] != byteOrderMark[d.bomSeen] {
			// What looked like a mark is the beginning of the first line, and no
			// known field begins like that.
			d.lineLen, d.ignored = d.bomSeen, d.bomSeen > 0
			d.bomSeen = len(byteOrderMark)
			return i
		}
		d.bomSeen++
	}
	return len(p)
}

// endLine takes the rest of a line, up to its end.
func (d *Decoder) endLine(rest []byte) error {
	if d.lineLen == 0 {
		if len(rest) > d.maxEvent {
			return ErrEventTooLarge
		}
		return d.processLine(rest)
	}
	if err := d.addToLine(rest); err != nil {
		return err
	}
	line, ignored := d.line, d.ignored
	d.lineLen, d.ignored, d.line = 0, false, d.line[:0]
	if ignored {
		return nil
	}
	return d.processLine(line)
}

// addToLine takes a part of a line that has begun in an earlier Write or does
// not end in this one.
func (d *Decoder) addToLine(part []byte) error {
	d.lineLen += len(part)
	if d.lineLen > d.maxEvent {
		return ErrEventTooLarge
	}
	if d.ignored {
		return nil
	}
	if head := len("retry:") - len(d.line); head > 0 {
		head = min(head, len(part))
		d.line = append(d.line, part[:head]...)
		part = part[head:]
		if !mayBeField(d.line) {
			d.ignored, d.line = true, d.line[:0]
			return nil
		}
	}
	d.line = append(grow(d.line, len(part), d.maxEvent), part...)
	return nil
}

// grow makes room in buf for n more bytes. What is large doubles, to end at
// limit: append, which adds a quarter, would leave five times as much garbage
// behind as there are bytes, and the next connection that brings an event
// without an end comes soon.
func grow(buf []byte, n, limit int) []byte {
	need := len(buf) + n
	if need <= cap(buf) || need <= maxIdleBuffer {
		return buf
	}
	size := max(need, limit)
	for size/2 >= need {
		size /= 2
	}
	grown := make([]byte, len(buf), size)
	copy(grown, buf)
	return grown
}

// mayBeField reports whether a line that begins with head can be one of the
// fields that are known.
func mayBeField(head []byte) bool {
	for _, field := range [...]string{"data:", "event:", "id:", "retry:"} {
		n := min(len(head), len(field))
		if string(head[:n]) == field[:n] {
			return true
		}
	}
	return false
}

// processLine follows "Interpreting an event stream". A comment is a field
// without a name, which is not known.
func (d *Decoder) processLine(line []byte) error {
	if len(line) == 0 {
		d.dispatch()
		return nil
	}
	name, text := line, line[len(line):]
	// bytes.Cut, with a separator of any length, takes a tenth longer an event.
	if colon := bytes.IndexByte(line, ':'); colon >= 0 { //nolint:modernize
		name, text = line[:colon], line[colon+1:]
		if len(text) > 0 && text[0] == ' ' {
			text = text[1:]
		}
	}
	switch string(name) {
	case "data":
		if d.event.HasData {
			if len(d.data.text)+1+len(text) > d.maxEvent {
				return ErrEventTooLarge // what takes the place of invalid UTF-8 is no shorter
			}
			d.data.addLine(text, d.maxEvent)
		} else {
			d.data.set(text, d.maxEvent)
		}
		d.event.HasData = true
	case "event":
		d.typ.set(text, d.maxEvent)
	case "id":
		if bytes.IndexByte(text, 0) < 0 {
			d.id.set(text, d.maxEvent)
			d.event.HasID = true
		}
	case "retry":
		if retry, ok := parseRetry(text); ok {
			d.event.Retry, d.event.HasRetry = retry, true
		}
	}
	if len(d.id.text)+len(d.typ.text)+len(d.data.text) > d.maxEvent {
		return ErrEventTooLarge
	}
	return nil
}

// parseRetry reads a reconnection time: ASCII digits, in milliseconds. One that
// no time.Duration can hold becomes the longest that it can.
func parseRetry(text []byte) (retry time.Duration, ok bool) {
	const longest = math.MaxInt64 / int64(time.Millisecond)
	var ms int64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = min(ms*10+int64(c-'0'), longest)
	}
	return time.Duration(ms) * time.Millisecond, len(text) > 0
}

// dispatch emits the block, if it means anything, and begins the next.
func (d *Decoder) dispatch() {
	e := &d.event
	if e.HasData || e.HasID || e.HasRetry {
		e.ID = d.id.text
		if e.HasData {
			e.Type, e.Data = d.typ.text, d.data.text
		}
		d.emit(e)
	}
	d.endBlock()
}

func (d *Decoder) endBlock() {
	d.event = Event{}
	d.id.reset()
	d.typ.reset()
	d.data.reset()
	if cap(d.line) > maxIdleBuffer {
		d.line = nil
	}
}

// fail gives all memory back: nothing will be decoded until Reset.
func (d *Decoder) fail(err error) error {
	*d = Decoder{maxEvent: d.maxEvent, emit: d.emit, err: err}
	return err
}

// value is the value of a field. It is borrowed from the line it came in, and
// becomes a copy only when the Write ends before the block does.
type value struct {
	text     []byte
	borrowed bool   // text is not in buf
	buf      []byte // reused for block after block
}

func (v *value) set(text []byte, limit int) {
	if utf8.Valid(text) {
		v.text, v.borrowed = text, true
		return
	}
	v.buf = appendValid(v.buf[:0], text, limit)
	v.text, v.borrowed = v.buf, false
}

func (v *value) addLine(text []byte, limit int) {
	v.keep()
	v.buf = append(grow(v.buf, 1+len(text), limit), '\n')
	if utf8.Valid(text) {
		v.buf = append(v.buf, text...)
	} else {
		v.buf = appendValid(v.buf, text, limit)
	}
	v.text = v.buf
}

func (v *value) keep() {
	if v.borrowed {
		v.buf = append(v.buf[:0], v.text...)
		v.text, v.borrowed = v.buf, false
	}
}

func (v *value) reset() {
	v.text, v.borrowed = nil, false
	if cap(v.buf) > maxIdleBuffer {
		v.buf = nil
	}
}
