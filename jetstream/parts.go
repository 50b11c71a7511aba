package jetstream

import "errors"

// split returns the parts of an encoded event that are no longer than limit each.
func split(body []byte, limit int) [][]byte {
	parts := make([][]byte, 0, len(body)/limit+1)
	for len(body) > limit {
		parts = append(parts, body[:limit:limit])
		body = body[limit:]
	}
	return append(parts, body)
}

// An assembler puts the parts of events together.
type assembler struct {
	limit int // of an encoded event, in bytes

	body  []byte
	taken int // parts of the event that is incomplete, or 0
}

var errTooLarge = errors.New("an event in the stream is larger than max_event_size of this node, and is left out")

// add takes a part, and returns the encoded event once that is complete. Messages come
// without holes, but the first may stand in the middle of an event whose beginning the
// stream has no more.
func (a *assembler) add(m *message) (body []byte, err error) {
	if m.part == 1 {
		a.reset()
	}
	if m.part != a.taken+1 {
		a.reset()
		return nil, nil
	}
	if len(a.body)+len(m.body) > a.limit {
		a.reset()
		return nil, errTooLarge
	}
	if m.parts == 1 {
		return m.body, nil
	}
	a.body = append(a.body, m.body...)
	if a.taken++; a.taken < m.parts {
		return nil, nil
	}
	body = a.body
	a.reset()
	return body, nil
}

// reset drops what is incomplete.
func (a *assembler) reset() { a.body, a.taken = nil, 0 }
