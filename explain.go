package ssefanout

import (
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// explainPass says how an operator can have such requests shared after all.
func (h *Handler) explainPass(p *pool, why pass.Reason, r *http.Request) {
	var header string
	switch why {
	case pass.Header:
		header = pass.IdentifyingHeader(r, h.settings, h.surroundings) // of several, another with each request
	case pass.Certificate:
	default:
		return
	}
	if !p.notices.once(why, header) {
		return
	}
	if c := h.logger.Check(zapcore.InfoLevel, "not sharing a request that may identify its client"); c != nil {
		fields := []zap.Field{
			zap.String("reason", string(why)),
			zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials strip' if the stream is public"),
		}
		if header != "" {
			fields = append(fields, zap.String("header", header))
		}
		c.Write(fields...)
	}
}

// explainDiffers says once for each fact that the site has made something else of a
// client's request than of the stranger's.
func (p *pool) explainDiffers(t *relay.Topic, fact string) {
	if p.notices.once(pass.Differs, fact) {
		p.log().Info("not sharing a request that the site has changed otherwise than that of a stranger",
			zap.String("topic", t.Name()),
			zap.String("fact", fact),
			zap.String("hint", "name it in vary if the stream depends on it, or change it behind sse_fanout if it does not"))
	}
}

// explainNothingBehind says once that a handler of the wrapping form is the last one of
// its route.
func (p *pool) explainNothingBehind(t *relay.Topic) {
	if p.notices.once(pass.NotStream, "") {
		p.log().Warn("nothing to share, as nothing behind sse_fanout has answered",
			zap.String("topic", t.Name()),
			zap.String("hint", "name upstreams in sse_fanout, or put it in front of the handler that answers, such as reverse_proxy, in the same block"))
	}
}

// explainRefusal says once how an operator can have the origin judge by what a
// client has brought, if it may have refused the shared request for want of it.
func (p *pool) explainRefusal(t *relay.Topic, no *relay.Outcome, r *http.Request) {
	switch {
	case p.opts.Wrapping, no.Status != http.StatusUnauthorized && no.Status != http.StatusForbidden:
		return
	case len(p.opts.VaryPlaceholders) > 0:
		return // the origin may get credentials by a placeholder
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if len(r.Header[name]) == 0 || slices.Contains(p.opts.VaryHeaders, name) {
			continue
		}
		if p.notices.once(pass.Refused, "") {
			p.log().Warn("the origin has refused a shared request, which is without the credentials of its client",
				zap.String("topic", t.Name()),
				zap.Int("status", no.Status),
				zap.String("header", name),
				zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials pass' to have such requests go through one to one"))
		}
		return
	}
}

// explainRestriction says once for each reason why streams are not shared, and
// what could be done.
func (p *pool) explainRestriction(t *relay.Topic, restricted *relay.Restriction) {
	explain := func(why pass.Reason, header, message, hint string) {
		if p.notices.once(why, header) {
			fields := []zap.Field{zap.String("topic", t.Name()), zap.String("reason", string(why)), zap.String("hint", hint)}
			if header != "" {
				fields = append(fields, zap.String("header", header))
			}
			p.log().Info(message, fields...)
		}
	}
	switch pass.Reason(restricted.Pass) {
	case pass.SetCookie:
		explain(pass.SetCookie, "", "not sharing an event stream whose answer sets a cookie",
			"set 'credentials strip' if the stream is public: the cookie is dropped then")
	case pass.Session:
		explain(pass.Session, "", "not sharing an event stream that begins with a session of its own",
			"nothing is wrong: such streams, as of MCP's HTTP+SSE transport, work one to one")
	case pass.Vary:
		explain(pass.Vary, restricted.Differs, "not sharing an event stream whose answer varies with each client",
			"name the header in vary if the stream depends on it, or remove it from the answer's Vary in the source if it does not")
	default:
		for _, name := range restricted.Vary {
			explain(pass.Vary, name, "sharing an event stream only among clients with the same value of a header, as its answer says in Vary",
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
