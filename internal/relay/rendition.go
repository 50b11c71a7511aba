package relay

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// renditions are those of a topic's log, by audience.
type renditions []*gzip.Rendition

// newRenditions returns those of a log, by audience. Audiences that are told the same at a
// heartbeat and at a gap share one, as all that is in a rendition is the same for all.
func newRenditions(cfg *Config, log *hub.Log) renditions {
	if cfg.Compress == nil {
		return nil
	}
	all := make(renditions, len(cfg.Words))
	for i := range cfg.Words {
		w := &cfg.Words[i]
		for _, other := range all[:i] {
			if other.Has(w.Heartbeat, w.Gap) {
				all[i] = other
				break
			}
		}
		if all[i] == nil {
			all[i] = gzip.NewRendition(log, *cfg.Compress, w.Heartbeat, w.Gap)
		}
	}
	return all
}

// trim forgets what is compressed of entries that have grown too old.
func (all renditions) trim() {
	for _, r := range all {
		r.Trim()
	}
}
