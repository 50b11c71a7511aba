package ssefanout

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// restrictionError is what a client gets to hear that waits for a restricted answer.
func restrictionError(r *relay.Restriction) error {
	if r.Pass != "" {
		return passReason(r.Pass)
	}
	return joinAgainError(r.Vary)
}

// restrictionOf returns what the header of an answer says against sharing it.
// learned has the headers that the topic's key has because of earlier answers.
func restrictionOf(s *settings.Settings, header http.Header, learned []string) relay.Restriction {
	if !s.Strip && len(fields.Values(header, "Set-Cookie")) > 0 {
		return relay.Restriction{Pass: string(passSetCookie)}
	}
	var vary []string
	for name := range fields.Items(fields.Values(header, "Vary")) {
		name = fields.Canonical(name)
		switch {
		case name == "*":
			return relay.Restriction{Pass: string(passVary), Differs: name}
		case slices.Contains(s.VaryHeaders, name), slices.Contains(learned, name), slices.Contains(vary, name):
		case fields.SameForAll(name):
		case fields.SelectsVariant(name):
			vary = append(vary, name)
		default:
			return relay.Restriction{Pass: string(passVary), Differs: name}
		}
	}
	if len(vary) > 0 && len(learned)+len(vary) > request.MaxLearned {
		return relay.Restriction{Pass: string(passVary)}
	}
	return relay.Restriction{Vary: vary}
}

// restrictionOf returns what the header of an answer says against sharing it with
// the clients of the topic.
func (u *upstream) restrictionOf(header http.Header) relay.Restriction {
	return restrictionOf(u.pool.opts, header, u.request.Learned)
}

const (
	// passMemoryTime is how long a key is known to be answered for one client.
	passMemoryTime = time.Minute

	// sessionMemoryTime is how long a key is known to begin a session: what
	// speaks such a protocol does so for as long as it is deployed.
	sessionMemoryTime = time.Hour
)

// Restricted implements relay.Observer: it remembers what is not shared.
func (p *pool) Restricted(t *relay.Topic, out *relay.Outcome) {
	switch restricted := &out.Restriction; {
	case restricted.Pass == string(passSession):
		p.passing.remember(t.Key(), passSession, sessionMemoryTime)
	case restricted.Pass != "":
		p.passing.remember(t.Key(), passReason(restricted.Pass), passMemoryTime)
	default:
		p.learn(upstreamOf(t).request, restricted.Vary)
	}
	if out.Verdict == relay.Personal {
		p.explainRestriction(t, &out.Restriction)
	}
}

// explainRestriction says once for each reason why streams are not shared, and
// what could be done.
func (p *pool) explainRestriction(t *relay.Topic, restricted *relay.Restriction) {
	explain := func(why passReason, header, message, hint string) {
		if p.notices.once(why, header) {
			fields := []zap.Field{zap.String("topic", t.Name()), zap.String("reason", string(why)), zap.String("hint", hint)}
			if header != "" {
				fields = append(fields, zap.String("header", header))
			}
			p.log().Info(message, fields...)
		}
	}
	switch passReason(restricted.Pass) {
	case passSetCookie:
		explain(passSetCookie, "", "not sharing an event stream whose answer sets a cookie",
			"set 'credentials strip' if the stream is public: the cookie is dropped then")
	case passSession:
		explain(passSession, "", "not sharing an event stream that begins with a session of its own",
			"nothing is wrong: such streams, as of MCP's HTTP+SSE transport, work one to one")
	case passVary:
		explain(passVary, restricted.Differs, "not sharing an event stream whose answer varies with each client",
			"name the header in vary if the stream depends on it, or remove it from the answer's Vary in the source if it does not")
	default:
		for _, name := range restricted.Vary {
			explain(passVary, name, "sharing an event stream only among clients with the same value of a header, as its answer says in Vary",
				"remove Vary in the source if the stream does not depend on the header")
		}
	}
}

// explainPrivate says once that an answer that is shared claims to be private.
// Frameworks send that on everything, so it means nothing by itself.
func (p *pool) explainPrivate(t *relay.Topic, header http.Header) {
	for directive := range fields.Items(header["Cache-Control"]) {
		name, _, _ := strings.Cut(directive, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "private") {
			continue
		}
		if p.notices.once("private", "") {
			p.log().Info("sharing an event stream whose answer says that it is private",
				zap.String("topic", t.Name()),
				zap.String("header", "Cache-Control"),
				zap.String("hint", "many frameworks say so of everything; if the stream depends on its client, name what tells it in vary"))
		}
		return
	}
}
