package multiplex

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A state is that of one stream of a connection.
type state int

const (
	resting   state = iota // it is to be asked for
	asking                 // a request for it goes through the site
	reading                // it is shared, and read from a log
	handed                 // it is shared, and read by a shard
	receiving              // it is this client's alone, and comes through a pipe
	over                   // it is refused, or the connection has ended
)

func (s state) String() string {
	return [...]string{"waiting", "asking", "shared", "shared", "private", "over"}[s]
}

// transitions are those that a stream may make.
var transitions = [...][]state{
	resting:   {asking, over},
	asking:    {reading, receiving, resting, over},
	reading:   {resting, handed, over},
	handed:    {reading, over},
	receiving: {resting, over},
	over:      {over},
}

const (
	// maxAsked is how many requests for streams of one connection are under way at once,
	// but for those that have gone on for longer than askPatience: a connection of 32
	// streams costs no more at a time than one whose client sends a few requests itself.
	maxAsked    = 8
	askPatience = time.Second

	// A stream that has ended is asked for again after its reconnection time, but not
	// sooner than minRest. If it keeps ending without an event, that time doubles up to
	// maxRest.
	minRest = time.Second
	maxRest = time.Minute
)

// A member is one stream of a connection. Only the goroutine of that touches it.
type member struct {
	conn   *Conn
	index  int
	stream Stream

	state state
	at    time.Time // resting: when it is asked for; asking: until when its request counts
	holds bool      // asking: its request counts for maxAsked

	asking  *Asking
	reader  *relay.Reader
	step    relay.Step // the last of the reader
	ready   bool       // the reader may have more
	carried *carried   // handed: what the shard knows of it

	opened   bool // the client knows that it has begun
	lost     bool // the client's position is not known
	retry    time.Duration
	failures int // since it last brought an event
}

// enter changes the state.
func (m *member) enter(next state) {
	if !slices.Contains(transitions[m.state], next) {
		panic(fmt.Sprintf("multiplex: a stream goes from %v to %v", m.state, next))
	}
	before := m.state
	m.conn.options.Stats.move(before, next)
	m.state = next
	if before.String() != next.String() {
		m.publish()
	}
}

// turn does what is to be done for the stream. It reports whether there may be more to do
// at once, and why the whole connection is to end.
func (m *member) turn(now time.Time) (busy bool, end relay.EndReason) {
	switch m.state {
	case resting:
		if !now.Before(m.at) && m.conn.asked(now) < maxAsked {
			m.ask(now)
		}
	case asking:
		m.hear()
		return m.state == reading || m.state == receiving, ""
	case reading:
		if m.ready {
			return m.read()
		}
	case receiving:
		m.receive()
	case handed, over:
	}
	return false, ""
}

// asked returns how many requests count for maxAsked.
func (c *Conn) asked(now time.Time) (n int) {
	for _, m := range c.members {
		if m.state == asking && m.holds {
			if now.Before(m.at) {
				n++
			} else {
				m.holds = false
			}
		}
	}
	return n
}

// ask sends a request for the stream.
func (m *member) ask(now time.Time) {
	c := m.conn
	a := &Asking{Stream: m.stream, Mark: c.positions.places[m.index].mark, Lost: m.lost, conn: c}
	ctx, cancel := context.WithCancel(c.base)
	a.ctx, a.cancel = context.WithValue(ctx, askingKey{}, a), cancel
	a.answer = answer{asking: a, header: make(http.Header)}
	m.asking, m.holds, m.at = a, true, now.Add(askPatience)
	m.enter(asking)
	c.options.Stats.Asked.Add(1)
	c.underway.Add(1)
	c.running.Go(func() {
		a.run()
		c.underway.Add(-1)
		c.notify()
	})
}

// hear does what the answer to the request for the stream says, once there is one.
func (m *member) hear() {
	news := m.asking.look()
	switch {
	case news.reader != nil && !news.over, news.status == 0 && !news.over:
	case news.admitted && news.reader != nil && !news.aborted:
		m.reader = news.reader
		m.asking = nil
		m.enter(reading)
		m.begin()
	case news.reader != nil:
		news.reader.Close()
		m.asking = nil
		if news.aborted {
			m.failures++
			m.rest(m.pause())
		} else {
			m.refuse(news.status)
		}
	case news.admitted:
		m.enter(receiving)
		m.conn.encode(m, &block{gap: m.lost || m.asking.Mark.IsDigest()})
		m.lost = false
	case news.delay > 0:
		m.rest(news.delay)
	case news.status == 0: // broken off
		m.failures++
		m.rest(m.pause())
	default:
		m.refuse(news.status)
	}
}

// begin begins to serve the client of a topic.
func (m *member) begin() {
	m.reader.Enter(m.conn.output)
	wire := m.reader.Begin()
	if len(wire) == 0 {
		m.conn.encode(m, &block{})
	}
	_ = m.conn.showAll(m, wire) // the next write fails, too
	m.lost, m.ready = false, true
}

// read does one step of the reader.
func (m *member) read() (busy bool, end relay.EndReason) {
	step := m.reader.Next()
	switch step.Kind {
	case relay.Send:
		if err := m.conn.showAll(m, step.Bytes); err != nil {
			return false, m.conn.output.Failed(err)
		}
		m.conn.unsent = append(m.conn.unsent, sentStep{m.reader, step})
		return true, ""
	case relay.End:
		return false, m.end(step.Reason)
	case relay.Wait:
		m.step, m.ready = step, false
	}
	return false, ""
}

// end is called when the stream of the reader is over. What it is over for may concern the
// whole connection: stream_timeout is there so that the client's credentials, as they are
// by then, decide anew.
func (m *member) end(reason relay.EndReason) relay.EndReason {
	if reason == relay.EndExiting || reason == relay.EndTimeout {
		return reason
	}
	m.failures++
	pause := m.pause()
	if b, _ := nextBlock(m.reader.Farewell(reason)); b.retry > 0 {
		pause = b.retry
	}
	m.reader.Ended(reason)
	m.closeReader()
	m.rest(pause)
	return ""
}

// receive takes what has come of a stream that is not shared.
func (m *member) receive() {
	news := m.asking.look()                 // before the pipe: what comes before the end is not missed
	_ = m.conn.showAll(m, news.pipe.take()) // the next write fails, too
	// The end is told in the same turn: it may be that nothing else wakes the connection.
	switch {
	case !news.over, m.state == over:
	case news.tooLarge:
		m.refuse(http.StatusRequestEntityTooLarge)
	default:
		m.failures++
		m.rest(m.pause())
	}
}

// pause returns how long it takes until the stream is asked for again.
func (m *member) pause() time.Duration {
	pause := m.retry
	if pause == 0 {
		pause = m.conn.options.Retry
	}
	pause = max(pause, minRest)
	for range m.failures - 1 {
		if pause *= 2; pause >= maxRest {
			return maxRest
		}
	}
	return pause
}

// rest makes the stream be asked for again after a while.
func (m *member) rest(pause time.Duration) {
	pause = max(pause, minRest)
	m.asking = nil
	m.conn.tell(m, endType, "retry", int(pause.Milliseconds()))
	m.opened = false
	m.at = time.Now().Add(pause)
	m.enter(resting)
}

// refuse ends the stream for good. Its position is kept in ids, should another request
// fare better.
func (m *member) refuse(status int) {
	if m.asking != nil {
		m.asking.cancel()
	}
	m.conn.tell(m, errorType, "status", status)
	m.opened = false
	m.conn.options.Stats.Refused.Add(1)
	m.enter(over)
}

func (m *member) closeReader() {
	m.reader.Close()
	m.reader, m.step, m.ready = nil, relay.Step{}, false
}

// leave ends the stream with the connection.
func (m *member) leave(reason relay.EndReason) {
	switch {
	case m.reader != nil:
		m.reader.Ended(reason)
		m.closeReader()
	case m.carried != nil:
		events, bytes, _ := m.carried.Progress()
		m.carried.subscriber.Leave(reason, events, bytes)
		m.carried = nil
	}
	m.enter(over)
}

// isShared reports whether others read the stream, too.
func (m *member) isShared() bool { return m.state == reading || m.state == handed }

// discard closes what the connection has not come to serve. The request is over.
func (m *member) discard() {
	if m.asking != nil {
		if reader := m.asking.look().reader; reader != nil {
			reader.Close()
		}
		m.asking = nil
	}
}
