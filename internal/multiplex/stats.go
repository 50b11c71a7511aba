package multiplex

import (
	"sync/atomic"
	"time"
)

// Stats are the counters of all connections. They are read when somebody asks.
type Stats struct {
	Connections atomic.Int64  // open now
	Asked       atomic.Uint64 // requests for streams that have gone through the site
	Refused     atomic.Uint64 // streams that were refused
	Rejected    atomic.Uint64 // connections that were turned away, as a limit was reached
	Heartbeats  atomic.Uint64

	in [over + 1]atomic.Int64 // streams by state
}

// move counts a stream whose state changes.
func (s *Stats) move(from, to state) {
	if from == to {
		return
	}
	// Those that wait, or are over, are not looked at: a stream begins as one that waits.
	s.in[from].Add(-1)
	s.in[to].Add(+1)
}

// Shared returns how many streams are read from logs that others read, too.
func (s *Stats) Shared() int64 { return s.in[reading].Load() + s.in[handed].Load() }

// Private returns how many streams are their client's alone.
func (s *Stats) Private() int64 { return s.in[receiving].Load() }

// A memberView is what others may see of a stream.
type memberView struct {
	state  state     // guarded by Conn.mu
	since  time.Time // guarded by Conn.mu
	topic  string    // guarded by Conn.mu
	events atomic.Uint64
}

// publish lets others see the state of the stream.
func (m *member) publish() {
	topic := ""
	if m.reader != nil {
		topic = m.reader.Topic().Name()
	}
	m.conn.mu.Lock()
	defer m.conn.mu.Unlock()
	v := &m.conn.views[m.index]
	v.state, v.since, v.topic = m.state, time.Now(), topic
}

// A Snapshot is what an administrator sees of a connection.
type Snapshot struct {
	Number  uint64
	Started time.Time
	Streams []StreamSnapshot
}

// A StreamSnapshot is what an administrator sees of one stream. Its path is not told, as its
// query may be a secret.
type StreamSnapshot struct {
	Alias  string
	State  string    // waiting, asking, shared, private, over
	Since  time.Time // when it came into this state
	Topic  string    // the public name of the topic, if it is shared
	Events uint64    // sent to the client
}

// Snapshot returns what is seen of the connection now.
func (c *Conn) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Snapshot{Number: c.number, Started: c.started, Streams: make([]StreamSnapshot, len(c.views))}
	for i := range c.views {
		v := &c.views[i]
		s.Streams[i] = StreamSnapshot{
			Alias:  c.options.Streams[i].Alias,
			State:  v.state.String(),
			Since:  v.since,
			Topic:  v.topic,
			Events: v.events.Load(),
		}
	}
	return s
}

// Number names the connection to administrators.
func (c *Conn) Number() uint64 { return c.number }
