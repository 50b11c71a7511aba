package observe

import (
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// ExplainPass says how an operator can have requests shared after all that pass for a client
// certificate or a header.
func (o *Observer) ExplainPass(logger *zap.Logger, why pass.Reason, header string) {
	if why != pass.Header && why != pass.Certificate || !o.notices.Once(why, header) {
		return
	}
	if c := logger.Check(zapcore.InfoLevel, "not sharing a request that may identify its client"); c != nil {
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

// ExplainDiffers says once for each fact that the site has made something else of a
// client's request than of the stranger's.
func (o *Observer) ExplainDiffers(t *relay.Topic, fact string) {
	if o.notices.Once(pass.Differs, fact) {
		o.Log().Info("not sharing a request that the site has changed otherwise than that of a stranger",
			zap.String("topic", t.Name()),
			zap.String("fact", fact),
			zap.String("hint", "name it in vary if the stream depends on it, or change it behind sse_fanout if it does not"))
	}
}

// ExplainNothingBehind says once that a handler of the wrapping form is the last one of
// its route.
func (o *Observer) ExplainNothingBehind(t *relay.Topic) {
	if o.notices.Once(pass.NotStream, "") {
		o.Log().Warn("nothing to share, as nothing behind sse_fanout has answered",
			zap.String("topic", t.Name()),
			zap.String("hint", "name upstreams in sse_fanout, or put it in front of the handler that answers, such as reverse_proxy, in the same block"))
	}
}

// ExplainRefusal says once how an operator can have the origin judge by what a
// client has brought, if it may have refused the shared request for want of it.
func (o *Observer) ExplainRefusal(s *settings.Settings, t *relay.Topic, no *relay.Outcome, r *http.Request) {
	switch {
	case s.Wrapping, no.Status != http.StatusUnauthorized && no.Status != http.StatusForbidden:
		return
	case len(s.VaryPlaceholders) > 0:
		return // the origin may get credentials by a placeholder
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if len(r.Header[name]) == 0 || slices.Contains(s.VaryHeaders, name) {
			continue
		}
		if o.notices.Once(pass.Refused, "") {
			o.Log().Warn("the origin has refused a shared request, which is without the credentials of its client",
				zap.String("topic", t.Name()),
				zap.Int("status", no.Status),
				zap.String("header", name),
				zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials pass' to have such requests go through one to one"))
		}
		return
	}
}

// ExplainRestriction says once for each reason why streams are not shared, and
// what could be done.
func (o *Observer) ExplainRestriction(t *relay.Topic, restricted *relay.Restriction) {
	explain := func(why pass.Reason, header, message, hint string) {
		if o.notices.Once(why, header) {
			fields := []zap.Field{zap.String("topic", t.Name()), zap.String("reason", string(why)), zap.String("hint", hint)}
			if header != "" {
				fields = append(fields, zap.String("header", header))
			}
			o.Log().Info(message, fields...)
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

// ExplainPrivate says once that an answer that is shared claims to be private.
// Frameworks send that on everything, so it means nothing by itself.
func (o *Observer) ExplainPrivate(t *relay.Topic, header http.Header) {
	for directive := range fields.Items(header["Cache-Control"]) {
		name, _, _ := strings.Cut(directive, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "private") {
			continue
		}
		if o.notices.Once("private", "") {
			o.Log().Info("sharing an event stream whose answer says that it is private",
				zap.String("topic", t.Name()),
				zap.String("header", "Cache-Control"),
				zap.String("hint", "many frameworks say so of everything; if the stream depends on its client, name what tells it in vary"))
		}
		return
	}
}
