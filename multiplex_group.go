package ssefanout

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
)

// multiplexGroups has the groups of sse_multiplex that have handlers or connections, by what
// defines them.
var multiplexGroups struct {
	mu  sync.Mutex
	all map[string]*multiplexGroup
}

// A multiplexGroup is the handlers of equal definition, over configurations, and their
// connections: these outlive a reload that leaves the handler as it was.
type multiplexGroup struct {
	key    string
	direct *direct.Writer

	// Guarded by multiplexGroups.mu.
	handlers  []*Multiplex // the newest last
	started   *Multiplex   // the newest that a client has reached
	conns     map[*multiplex.Conn]struct{}
	places    int            // taken
	addresses map[string]int // places taken by each client address
}

// joinGroup makes h a part of its group.
func joinGroup(key string, h *Multiplex) *multiplexGroup {
	groups := &multiplexGroups
	groups.mu.Lock()
	defer groups.mu.Unlock()
	g := groups.all[key]
	if g == nil {
		g = &multiplexGroup{
			key: key,
			direct: direct.NewWriter(direct.Options{
				Timeout:  time.Duration(h.settings.DispatchTimeout),
				Panicked: panicLogger(h.logger),
				Network:  h.sockets.Network,
			}),
			conns:     make(map[*multiplex.Conn]struct{}),
			addresses: make(map[string]int),
		}
		if groups.all == nil {
			groups.all = make(map[string]*multiplexGroup)
		}
		groups.all[key] = g
	}
	g.handlers = append(g.handlers, h)
	return g
}

// leave takes h out of its group. The connections of a group without handlers are ended:
// their clients come back, and find the new configuration.
func (g *multiplexGroup) leave(h *Multiplex) {
	multiplexGroups.mu.Lock()
	g.handlers = slices.DeleteFunc(g.handlers, func(other *Multiplex) bool { return other == h })
	if g.started == h {
		g.started = nil
	}
	g.forget()
	var orphans []*multiplex.Conn
	if len(g.handlers) == 0 {
		orphans = g.all()
	}
	multiplexGroups.mu.Unlock()
	for _, c := range orphans {
		c.End(relay.Ending{Reason: relay.EndDrained, Over: time.Duration(h.settings.StreamCloseDelay)})
	}
}

// forget drops a group that has nothing left. multiplexGroups.mu must be held.
func (g *multiplexGroup) forget() {
	if len(g.handlers) == 0 && len(g.conns) == 0 && g.places == 0 && multiplexGroups.all[g.key] == g {
		delete(multiplexGroups.all, g.key)
		g.direct.Close()
	}
}

// serves is called when a client has reached h: its configuration has started.
func (g *multiplexGroup) serves(h *Multiplex) {
	multiplexGroups.mu.Lock()
	defer multiplexGroups.mu.Unlock()
	if slices.Index(g.handlers, h) > slices.Index(g.handlers, g.started) {
		g.started = h
	}
}

// door returns where requests for streams enter the site: that of the newest configuration
// that has started. It is nil if there is none any more.
func (g *multiplexGroup) door() site.Door {
	multiplexGroups.mu.Lock()
	handlers := slices.Clone(g.handlers)
	started := g.started
	multiplexGroups.mu.Unlock()
	for _, h := range slices.Backward(handlers) {
		if h == started || h.door.IsActive() {
			return h.door
		}
	}
	if len(handlers) > 0 {
		return handlers[len(handlers)-1].door
	}
	return nil
}

// reserve takes the place of a connection, unless a limit leaves none.
func (g *multiplexGroup) reserve(address string, limits *ConnectionLimits) relay.Rejection {
	multiplexGroups.mu.Lock()
	defer multiplexGroups.mu.Unlock()
	switch {
	case g.places >= limits.Total:
		return relay.RejectTotal
	case limits.PerClientIP > 0 && g.addresses[address] >= limits.PerClientIP:
		return relay.RejectAddress
	}
	g.places++
	g.addresses[address]++
	return ""
}

// release gives a place back.
func (g *multiplexGroup) release(address string) {
	multiplexGroups.mu.Lock()
	defer multiplexGroups.mu.Unlock()
	g.places--
	if g.addresses[address]--; g.addresses[address] == 0 {
		delete(g.addresses, address)
	}
	g.forget()
}

// enter makes c a connection of the group.
func (g *multiplexGroup) enter(c *multiplex.Conn) {
	multiplexGroups.mu.Lock()
	g.conns[c] = struct{}{}
	orphaned := len(g.handlers) == 0
	multiplexGroups.mu.Unlock()
	switch {
	case caddy.Exiting():
		c.End(relay.Ending{Reason: relay.EndExiting}) // whoever ends all may have looked before
	case orphaned:
		c.End(relay.Ending{Reason: relay.EndDrained})
	}
}

// exit is called when c has ended.
func (g *multiplexGroup) exit(c *multiplex.Conn) {
	multiplexGroups.mu.Lock()
	defer multiplexGroups.mu.Unlock()
	delete(g.conns, c)
}

// all returns the connections. multiplexGroups.mu must be held.
func (g *multiplexGroup) all() []*multiplex.Conn {
	all := make([]*multiplex.Conn, 0, len(g.conns))
	for c := range g.conns {
		all = append(all, c)
	}
	return all
}

// multiplexConns returns all connections of the process, the oldest first.
func multiplexConns() []*multiplex.Conn {
	multiplexGroups.mu.Lock()
	var all []*multiplex.Conn
	for _, g := range multiplexGroups.all {
		all = append(all, g.all()...)
	}
	multiplexGroups.mu.Unlock()
	slices.SortFunc(all, func(a, b *multiplex.Conn) int { return int(a.Number()) - int(b.Number()) })
	return all
}

func init() { caddy.OnExit(awaitConns) }

// awaitConns runs when Caddy is about to exit. No server knows the connections that direct
// delivery has taken from it. It waits as long as awaitPools does.
func awaitConns(context.Context) {
	endConnsIfExiting()
	patience := time.After(2 * carrier.ExitGrace)
	for _, c := range multiplexConns() {
		select {
		case <-c.Done():
		case <-patience:
			return
		}
	}
}

// endConnsIfExiting runs when a server shuts down. On exit, Caddy waits for every response
// to end, so all connections are ended at once.
func endConnsIfExiting() {
	if !caddy.Exiting() {
		return
	}
	for _, c := range multiplexConns() {
		c.End(relay.Ending{Reason: relay.EndExiting})
	}
}
