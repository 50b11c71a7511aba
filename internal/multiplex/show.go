package multiplex

import (
	"strconv"
)

// large is the size from which the data of an event are not copied.
const large = 32 << 10

// showAll sends the client what has come of a stream.
func (c *Conn) showAll(m *member, wire []byte) error {
	for len(wire) > 0 {
		var b block
		b, wire = nextBlock(wire)
		if shared := c.encode(m, &b); shared != nil {
			if err := c.flush(shared); err != nil {
				return err
			}
		}
		if len(c.buf) > maxBuffer {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode buffers a block of a stream, under its alias, and with the positions of all. The data
// of a large event are left out, and returned: they are to be sent behind what is buffered.
func (c *Conn) encode(m *member, b *block) (shared []byte) {
	if m.state == over {
		return nil
	}
	if b.retry > 0 {
		m.retry = b.retry
	}
	if b.hasID && !c.place(m, string(b.id)) {
		return nil
	}
	if !m.opened {
		m.opened = true
		c.control(m, openType, "{}")
	}
	if b.gap {
		c.control(m, gapType, "{}")
	}
	if len(b.data) == 0 {
		return nil
	}
	m.failures = 0
	c.views[m.index].events.Add(1)
	c.head()
	c.buf = appendType(c.buf, m.stream.Alias, b.typ)
	data := b.data[:len(b.data)+1] // and the blank line behind them
	if len(data) >= large {
		return data
	}
	c.buf = append(c.buf, data...)
	return nil
}

// place makes id the position of a stream. It reports false if that has ended the stream.
func (c *Conn) place(m *member, id string) bool {
	c.moved = true
	if c.positions.set(m.index, id, m.isShared()) {
		return true
	}
	// Only the ids of streams that nobody else has need to stand whole.
	var longest *member
	for _, other := range c.members {
		if other.state == receiving && (longest == nil ||
			len(c.positions.places[other.index].mark) > len(c.positions.places[longest.index].mark)) {
			longest = other
		}
	}
	if longest == nil {
		return true // no id is written until there is room
	}
	c.positions.put(longest.index, "")
	longest.refuse(statusIDTooLong)
	return longest != m
}

// statusIDTooLong is the status of a stream whose ids leave no room for the positions of the
// others: a request with them would be answered so (RFC 6585, section 5).
const statusIDTooLong = 431

// head begins an event with the id in force, if that has changed.
func (c *Conn) head() {
	c.buf = c.buffered()
	if !c.moved || !c.positions.fits() {
		return
	}
	c.moved = false
	c.buf = append(c.positions.append(append(c.buf, "id: "...)), '\n')
}

// control sends an event of the connection's own.
func (c *Conn) control(m *member, typ, data string) {
	c.head()
	c.buf = append(append(append(append(c.buf, "event: "...), m.stream.Alias...), '/'), typ...)
	c.buf = append(append(append(c.buf, "\ndata: "...), data...), "\n\n"...)
}

// tell is control with one number.
func (c *Conn) tell(m *member, typ, name string, number int) {
	c.control(m, typ, `{"`+name+`":`+strconv.Itoa(number)+`}`)
}
