package pass

import (
	"net/http"
	"slices"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// RestrictionOf returns what the header of an answer says against sharing it.
// learned has the headers that the topic's key has because of earlier answers.
func RestrictionOf(s *settings.Settings, header http.Header, learned []string) relay.Restriction {
	if !s.Strip && len(fields.Values(header, "Set-Cookie")) > 0 {
		return relay.Restriction{Pass: string(SetCookie)}
	}
	var vary []string
	for name := range fields.Items(fields.Values(header, "Vary")) {
		name = fields.Canonical(name)
		switch {
		case name == "*":
			return relay.Restriction{Pass: string(Vary), Differs: name}
		case slices.Contains(s.VaryHeaders, name), slices.Contains(learned, name), slices.Contains(vary, name):
		case fields.SameForAll(name), s.Wrapping && slices.Contains(fields.Countries, name):
		case fields.SelectsVariant(name):
			vary = append(vary, name)
		default:
			return relay.Restriction{Pass: string(Vary), Differs: name}
		}
	}
	if len(vary) > 0 && len(learned)+len(vary) > request.MaxLearned {
		return relay.Restriction{Pass: string(Vary)}
	}
	return relay.Restriction{Vary: vary}
}
