package ssefanout

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// lineages has the handlers in use by the active configuration, and while one
// replaces another those of both, by what defines them (Handler.lineageKey). It
// lets topics, their clients and their connections to the origin be preserved
// through a reload: the new handler is provisioned before the old one is
// cleaned up, and joins its lineage.
var lineages = caddy.NewUsagePool()

// A lineage is the handlers of equal definition, over configurations, and the
// pool that they share and hand on. In the endpoint form, the origin would give the
// same answer to each, whatever stands in front of them. In the wrapping form, a
// topic knows which of them its stranger has reached (see site.Homes).
type lineage struct {
	key string

	mu sync.Mutex

	// Guarded by mu.
	handlers []*instance // the newest last
	shared   *pool
}

// handlers counts those of the process.
var handlers atomic.Uint64

// joinLineage makes h a part of its lineage.
func joinLineage(key string, h *instance) *lineage {
	value, _, _ := lineages.LoadOrNew(key, func() (caddy.Destructor, error) {
		return &lineage{key: key}, nil
	})
	l := value.(*lineage)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handlers = append(l.handlers, h)
	h.number = strconv.FormatUint(handlers.Add(1), 36) + ":"
	if l.shared != nil {
		l.shared.SetLogger(h.logger)
	}
	return l
}

// leave takes h out of its lineage. A pool that nobody has inherited is drained:
// its clients come back, and find the new configuration.
func (l *lineage) leave(h *instance) error {
	l.mu.Lock()
	rolledBack := slices.Index(l.handlers, h) == len(l.handlers)-1 // otherwise those that replace h come later
	l.handlers = slices.DeleteFunc(l.handlers, func(other *instance) bool { return other == h })
	heir := l.shared
	var orphan *pool
	if own := h.pool.Load(); own != nil && own != l.shared {
		orphan = own
	} else if n := len(l.handlers); n > 0 && l.shared != nil {
		l.shared.SetLogger(l.handlers[n-1].logger)
	} else if n == 0 {
		orphan, l.shared = l.shared, nil
	}
	l.mu.Unlock()

	switch {
	case orphan != nil:
		orphan.drain()
	case rolledBack && heir != nil:
		heir.comeBack(h)
	}
	_, err := lineages.Delete(l.key)
	return err
}

// comeBack makes the topics go on through the newest configuration that are connected
// through that of h, which was rolled back. The others keep the connection they have,
// which may be one of an older configuration that leads to the same origin.
func (p *pool) comeBack(h *instance) {
	current, _ := p.relay.Topics()
	for _, t := range current {
		if upstreamOf(t).isConnectedThrough(h) {
			t.Reroute()
		}
	}
}

// Destruct has nothing left to do: the last handler that left has ended the pool.
func (l *lineage) Destruct() error { return nil }

// poolOf returns the pool of h, which is made for the first request: a
// configuration that is only validated needs none.
func (l *lineage) poolOf(h *instance) *pool {
	if p := h.pool.Load(); p != nil {
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := h.pool.Load(); p != nil {
		return p
	}
	var p *pool
	switch {
	case l.shared != nil:
		p = l.shared
	case !slices.Contains(l.handlers, h):
		p = newPool(l, h)
		p.relay.End(relay.Ending{Reason: relay.EndDrained})
	default:
		l.shared = newPool(l, h)
		p = l.shared
	}
	h.pool.Store(p)
	return p
}

// newest returns the handler of the newest configuration that has started, or
// else the newest. A source of an unloaded configuration is half dead, its health
// checks stopped and its contexts cancelled, and a configuration that has not
// started may be rolled back. l.mu must be held.
func (l *lineage) newest() (newest *instance, started bool) {
	n := len(l.handlers)
	if n == 0 {
		return nil, false
	}
	for _, h := range slices.Backward(l.handlers) {
		if !h.isStarted() {
			continue
		}
		for _, newest := range slices.Backward(l.handlers) {
			if newest.server == h.server {
				return newest, true
			}
		}
	}
	return l.handlers[n-1], false
}

// source returns what answers upstream requests from now on, or false if there is
// nothing left that could.
func (l *lineage) source() (source, bool) {
	l.mu.Lock()
	h, started := l.newest()
	l.mu.Unlock()
	if h == nil || h.wraps() && !started {
		return source{}, false
	}
	return h.upstreamSource(), true
}

// isNewest reports whether h is of the newest configuration that has started.
func (l *lineage) isNewest(h *instance) bool {
	newest := l.newestHandler()
	return newest != nil && newest.server == h.server
}

// newestHandler is newest for those who do not hold l.mu.
func (l *lineage) newestHandler() *instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, _ := l.newest()
	return h
}

// announcer returns who emits the events of p, or nil: a handler of the active
// configuration, or else of the one that is about to become it.
func (l *lineage) announcer(p *pool) *observe.Announcer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *observe.Announcer
	for _, h := range l.handlers {
		if h.pool.Load() != p && l.shared != p {
			continue
		}
		if found = h.announcer; found.Active() {
			break
		}
	}
	return found
}

// drain ends a pool whose handlers are gone. Its subscribers are ended over
// stream_close_delay, so that they do not all come back at once.
func (p *pool) drain() {
	p.relay.End(relay.Ending{Reason: relay.EndDrained, Over: time.Duration(p.opts.StreamCloseDelay)})
	p.hurryIfExiting()
}

// exitPoll is how often a pool that is drained looks whether Caddy exits.
const exitPoll = 250 * time.Millisecond

// hurryIfExiting ends a pool that is being drained when Caddy exits: no server
// of the active configuration might know of it.
func (p *pool) hurryIfExiting() {
	switch {
	case !alive.has(p):
	case caddy.Exiting():
		p.relay.End(relay.Ending{Reason: relay.EndExiting})
	default:
		time.AfterFunc(exitPoll, p.hurryIfExiting)
	}
}

func init() { caddy.OnExit(awaitPools) }

// awaitPools runs when Caddy has waited for its servers, and is about to exit: of
// connections that were taken from them, and of those to origins, they know nothing.
// Those that no server has told of the exit, because their handler is gone, are ended now.
func awaitPools(context.Context) {
	patience := time.After(2 * carrier.ExitGrace)
	for _, p := range alive.all() {
		p.relay.End(relay.Ending{Reason: relay.EndExiting})
		over := make(chan struct{})
		go func() {
			<-p.retired
			p.direct.Wait()
			close(over)
		}()
		select {
		case <-over:
		case <-patience:
			return
		}
	}
}

// endAllIfExiting runs when a server shuts down. On a reload there is nothing to
// do: Cleanup tells which pools go. On exit, Caddy waits for every response to
// end, so all streams are ended at once, whichever configuration they are from.
func endAllIfExiting() {
	if !caddy.Exiting() {
		return
	}
	for _, p := range alive.all() {
		p.relay.End(relay.Ending{Reason: relay.EndExiting})
	}
}
