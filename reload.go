package ssefanout

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// lineages has the handlers in use by the active configuration, and while one
// replaces another those of both, by what defines them (Handler.lineageKey). It
// lets topics, their clients and their connections to the origin be preserved
// through a reload: the new handler is provisioned before the old one is
// cleaned up, and joins its lineage.
var lineages = caddy.NewUsagePool()

// A lineage is the handlers of equal definition, over configurations, and the
// pool that one hands on to the next.
//
// In the endpoint form, handlers of equal definition share one pool: whatever
// stands in front of them, the origin would give the same answer to each. In
// the wrapping form, the handlers in front of and behind one are not part of its
// definition, so two of one configuration must never share; a handler is the heir of
// an earlier one only if each was the only one of its lineage in its configuration.
type lineage struct {
	key string

	mu sync.Mutex

	// Guarded by mu.
	handlers []*Handler // the newest last
	shared   *pool
}

// joinLineage makes h a part of its lineage.
func joinLineage(key string, h *Handler) *lineage {
	value, _, _ := lineages.LoadOrNew(key, func() (caddy.Destructor, error) {
		return &lineage{key: key}, nil
	})
	l := value.(*lineage)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handlers = append(l.handlers, h)
	if l.shared != nil {
		l.shared.logger.Store(h.logger)
	}
	return l
}

// leave takes h out of its lineage. A pool that nobody has inherited is drained:
// its clients come back, and find the new configuration.
func (l *lineage) leave(h *Handler) error {
	l.mu.Lock()
	l.handlers = slices.DeleteFunc(l.handlers, func(other *Handler) bool { return other == h })
	var orphans []*pool
	if own := h.pool.Load(); own != nil && own != l.shared {
		orphans = append(orphans, own)
	}
	if l.shared != nil {
		if heir := l.heir(); heir != nil {
			l.shared.logger.Store(heir.logger)
		} else {
			orphans = append(orphans, l.shared)
			l.shared = nil
		}
	}
	l.mu.Unlock()

	for _, p := range orphans {
		p.drain()
	}
	_, err := lineages.Delete(l.key)
	return err
}

// Destruct has nothing left to do: the last handler that left has ended the pool.
func (l *lineage) Destruct() error { return nil }

// poolOf returns the pool of h. It is not asked before h serves its first
// request, since only then all handlers of its configuration are known.
func (l *lineage) poolOf(h *Handler) *pool {
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
	case !slices.Contains(l.handlers, h) && !h.wraps() && l.shared != nil:
		// A request that was under way when the configuration was replaced, by
		// one that leaves this handler as it was.
		p = l.shared
	case !slices.Contains(l.handlers, h):
		p = newPool(l, h)
		p.end(ending{Reason: endDrained})
	case !l.inherits(h):
		p = newPool(l, h)
	case l.shared == nil:
		l.shared = newPool(l, h)
		p = l.shared
	default:
		p = l.shared
	}
	h.pool.Store(p)
	return p
}

// inherits reports whether h uses the pool of its lineage. l.mu must be held.
func (l *lineage) inherits(h *Handler) bool {
	if !h.wraps() {
		return true
	}
	return !slices.ContainsFunc(l.handlers, func(other *Handler) bool {
		return other != h && other.server == h.server
	})
}

// heir returns the newest handler that uses the shared pool. l.mu must be held.
func (l *lineage) heir() *Handler {
	for _, h := range slices.Backward(l.handlers) {
		if l.inherits(h) {
			return h
		}
	}
	return nil
}

// source returns what answers the requests of t from now on, or false if there
// is nothing left that could: a source of an unloaded configuration is half dead,
// its health checks stopped and its contexts cancelled.
func (l *lineage) source(t *topic) (source, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.heir(); h != nil && !h.wraps() {
		return h.endpoint(), true
	}
	route := t.route.Load()
	loaded := slices.ContainsFunc(l.handlers, func(h *Handler) bool { return h.server == route.server })
	return *route, loaded
}

// announcer returns who emits the events of p, or nil: a handler of the active
// configuration, or else of the one that is about to become it.
func (l *lineage) announcer(p *pool) *announcer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *announcer
	for _, h := range l.handlers {
		if h.pool.Load() != p && (l.shared != p || !l.inherits(h)) {
			continue
		}
		if found = h.announcer; found.active() {
			break
		}
	}
	return found
}

// isNewest reports whether a route is of the newest configuration.
func (l *lineage) isNewest(route *source) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.handlers) > 0 && l.handlers[len(l.handlers)-1].server == route.server
}

// alive has every pool of the process that has subscribers or may yet get some,
// those of earlier configurations included.
var alive poolSet

type poolSet struct {
	mu  sync.Mutex
	set map[*pool]struct{}
}

func (s *poolSet) add(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[*pool]struct{})
	}
	s.set[p] = struct{}{}
}

func (s *poolSet) remove(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, p)
}

func (s *poolSet) has(p *pool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.set[p]
	return ok
}

func (s *poolSet) all() []*pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*pool, 0, len(s.set))
	for p := range s.set {
		all = append(all, p)
	}
	return all
}

// drain ends a pool whose handlers are gone. Its subscribers are ended over
// stream_close_delay, so that they do not all come back at once.
func (p *pool) drain() {
	p.end(ending{Reason: endDrained, Over: time.Duration(p.opts.StreamCloseDelay)})
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
		p.end(ending{Reason: endExiting})
	default:
		time.AfterFunc(exitPoll, p.hurryIfExiting)
	}
}

func init() { caddy.OnExit(awaitHandedOver) }

// awaitHandedOver runs when Caddy has waited for its servers, and is about to exit:
// of connections that were taken from them, they know nothing. Those that no server
// has told of the exit, because their handler is gone, are ended now.
func awaitHandedOver(context.Context) {
	patience := time.After(2 * exitGrace)
	for _, p := range alive.all() {
		p.end(ending{Reason: endExiting})
		over := make(chan struct{})
		go func() {
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
		p.end(ending{Reason: endExiting})
	}
}
