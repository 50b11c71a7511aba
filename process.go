package ssefanout

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

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
