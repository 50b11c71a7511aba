package ssefanout

import (
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/keymemory"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// A pool is the topics of one handler. It outlives the handler: first over a
// reload that leaves the handler's configuration as it was, then for as long as
// it takes to end its subscribers.
type pool struct {
	observe.Observer

	lineage *lineage
	opts    *settings.Settings
	relay   *relay.Relay
	stats   *observe.Stats
	direct  *direct.Writer
	service carrier.Service
	places  pass.Places

	passing keymemory.Memory[pass.Reason] // the keys whose requests pass one to one at once, and why
	varying keymemory.Memory[[]string]    // the headers that have joined a key

	retired chan struct{} // closed when the relay is over, and nothing of it goes on
}

func newPool(l *lineage, h *instance) *pool {
	opts := h.settings
	p := &pool{
		lineage: l,
		opts:    opts,
		stats:   counted,
		retired: make(chan struct{}),
	}
	sockets := h.sockets
	if sockets == nil {
		sockets = carrier.Kernel{}
	}
	p.relay = relay.New(opts.Relay(compressors), p, &p.stats.Stats)
	p.direct = direct.NewWriter(direct.Options{
		Timeout:  p.dispatchTimeout(),
		Panicked: p.panicked,
		Network:  sockets.Network,
	})
	p.service = carrier.Service{
		Timeout:   p.dispatchTimeout(),
		Direct:    p.direct,
		HandsOver: opts.Direct != "off",
		Sockets:   sockets,
		Kept:      p.kept,
		Delivered: p.Delivered,
	}
	p.places = pass.Places{
		Relay:    p.relay,
		Limits:   opts.MaxSubscribers,
		Streams:  &p.stats.PassedStreams,
		TurnAway: p.turnAway,
	}
	p.Announcer = func() *observe.Announcer { return l.announcer(p) }
	p.SetLogger(h.logger)
	alive.add(p)
	if caddy.Exiting() {
		// Whoever ends all pools may have looked for them before.
		p.relay.End(relay.Ending{Reason: relay.EndExiting})
	}
	return p
}

// panicked logs a panic in a callback of direct delivery, as net/http does of a handler's.
func (p *pool) panicked(value any) {
	p.Log().Error("a callback has panicked", zap.Any("panic", value), zap.Stack("stack"))
}

// Retired implements relay.Observer.
func (p *pool) Retired() {
	p.direct.Close()
	alive.remove(p)
	close(p.retired)
}

func (p *pool) dispatchTimeout() time.Duration { return time.Duration(p.opts.DispatchTimeout) }

// source returns what answers upstream requests from now on, unless the pool is
// over.
func (p *pool) source() (source, bool) {
	if p.relay.IsOver() {
		return source{}, false
	}
	return p.lineage.source()
}

// counted are the counters of the process. All pools count in them, also those
// that are over: a request of an earlier configuration, or the end of a
// connection, may count late. So no counter ever goes back.
var counted = new(observe.Stats)

// alive has every pool of the process that has subscribers or upstreams, or may yet get
// some, those of earlier configurations included.
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

// kept says why a connection that could have been handed over was not.
func (p *pool) kept(reader *relay.Reader, why error) {
	if c := p.Log().Check(zapcore.DebugLevel, "delivering over the HTTP server"); c != nil {
		c.Write(zap.String("topic", reader.Topic().Name()), zap.Uint64("subscriber", reader.Number()), zap.Error(why))
	}
}
