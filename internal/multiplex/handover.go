package multiplex

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// isInStep reports whether a shard can go on: there is nothing but logs to wait for.
func (c *Conn) isInStep() bool {
	if c.ending.Load() != nil || c.underway.Load() > 0 {
		return false
	}
	for _, m := range c.members {
		if m.state != over && (m.state != reading || m.ready || !m.reader.CanHandOver()) {
			return false
		}
	}
	return true
}

// handOver lets a shard go on, if one can. It reports whether one does: then the connection
// is the shard's.
func (c *Conn) handOver() bool {
	solo := c.solo.Load()
	switch {
	case solo == nil && c.options.Adopt == nil, !c.isInStep():
		return false
	case solo == nil:
		if solo = c.adopt(); solo == nil {
			return false
		}
	}
	f := new(pursuit)
	var logs []*hub.Log
	c.recalled.Store(false)
	for _, m := range c.members {
		if m.state == over {
			m.discard()
			continue
		}
		m.handOver()
		f.members = append(f.members, m)
		f.putForward(m.carried.endAt)
		logs = append(logs, m.carried.log)
	}
	c.pursuit, c.unsent = f, nil
	c.selector.stop()
	c.mu.Lock()
	c.attended = c.lost != ""
	gone := c.attended
	c.mu.Unlock()
	if gone {
		return false // what is left to do is to end it
	}
	solo.Follow(logs)
	return true
}

// adopt hands the connection over to direct delivery. It returns nil if that has failed.
func (c *Conn) adopt() *direct.Solo {
	s := &source{Conn: c, gone: make(chan struct{})}
	solo, err := c.options.Adopt(s)
	c.options.Adopt = nil
	if err != nil {
		c.options.Kept(err)
		return nil
	}
	c.gone = s.gone
	c.output = soloOutput{c, solo}
	c.mu.Lock()
	c.carrier = c.output
	c.mu.Unlock()
	c.solo.Store(solo)
	if c.isExiting() {
		solo.Bound(carrier.ExitGrace) // whoever has said so may have hurried the output before
	}
	return solo
}

// attend takes the connection back from a shard that has paused.
func (c *Conn) attend() {
	defer func() {
		if p := recover(); p != nil {
			c.options.Panicked(p)
			c.finish(relay.EndClientGone)
		}
	}()
	for _, m := range c.pursuit.members {
		m.takeBack()
	}
	c.pursuit = nil
	if reason := c.run(); reason != "" {
		c.finish(reason)
	}
}

// finish ends a connection that was handed over, and that is attended to.
func (c *Conn) finish(reason relay.EndReason) {
	if reason == "" {
		reason = relay.EndClientGone // a handler has panicked
	}
	c.conclude(reason)
	c.mu.Lock()
	lost := c.lost
	c.attended = lost != ""
	c.mu.Unlock()
	if lost != "" {
		c.over(lost)
		return
	}
	c.solo.Load().End(direct.Reason(reason))
}

// lostFor returns why the client is gone.
func (c *Conn) lostFor() relay.EndReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != "" {
		return c.lost
	}
	return relay.EndClientGone
}

// A soloOutput writes to a connection that was handed over, while it is attended to.
type soloOutput struct {
	conn *Conn
	solo *direct.Solo
}

// Write implements output.
func (o soloOutput) Write(exiting bool, parts ...[]byte) error {
	if exiting {
		o.Hurry()
	}
	return o.solo.Write(parts...)
}

// Failed implements output.
func (o soloOutput) Failed(error) relay.EndReason {
	<-o.conn.gone
	return o.conn.lostFor()
}

// Hurry implements relay.Carrier.
func (o soloOutput) Hurry() { o.solo.Bound(carrier.ExitGrace) }

// Cut implements relay.Carrier.
func (o soloOutput) Cut() { o.solo.Bound(0) }
