package ssefanout

import (
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

// counted are the counters of the process. All pools count in them, also those
// that are over: a request of an earlier configuration, or the end of a
// connection, may count late. So no counter ever goes back.
var counted = new(observe.Stats)

// A process is what all pools and handlers of this process are to the metrics.
type process struct{}

// Counted implements observe.Process.
func (process) Counted() *observe.Stats { return counted }

// AddTo implements observe.Process.
func (process) AddTo(g *relay.Gauges) {
	for _, p := range alive.all() {
		p.relay.AddTo(g)
	}
}

// ShutOff implements observe.Process.
func (process) ShutOff() (n int) {
	lineages.Range(func(_, value any) bool {
		l := value.(*lineage)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, h := range l.handlers {
			if h.front.IsShutOff() {
				n++
			}
		}
		return true
	})
	return n
}

// topicsOf returns the topics of this process that have an id, or all for an empty one.
func topicsOf(id string) []*relay.Topic {
	all := alive.all()
	relays := make([]*relay.Relay, 0, len(all))
	for _, p := range all {
		relays = append(relays, p.relay)
	}
	return view.Topics(relays, id)
}

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
