// Package ssefanout registers a Caddy HTTP handler module that holds one
// event-stream connection to the origin per topic and shares it among any
// number of clients.
//
// The way of an event:
//
//	origin ──▶ source ──▶ sse.Decoder ──▶ hub.Log ──────────▶ cursor ──▶ writer ──▶ client
//	           any Caddy   bytes to        append, wake        one per     batch,      EventSource
//	           handler     events          encode once         subscriber  one write   curl, SDK
//
// One goroutine owns everything left of the log; everything right of it only
// reads. An event is decoded once and encoded once, and is shared, immutable
// bytes from then on.
//
// Where to look: caddyfile.go and internal/settings for the configuration, internal/pass
// for what is shared and what passes untouched, internal/request for what makes two requests
// meet in one topic, fanout.go for the way of one request, upstream.go for a topic's way to
// its origin (internal/origin asks a handler, internal/site the site), carry.go for serving
// one client, reload.go for what outlives a configuration. The engine between upstream and
// session is internal/relay. docs/design.md has the rest.
package ssefanout

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cli"
	"github.com/sse-fanout/caddy-sse-fanout/internal/conns"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

func init() {
	caddy.RegisterModule(&Handler{})
	caddycmd.RegisterCommand(cli.Fanout)
	caddycmd.RegisterCommand(cli.Tail)
	caddycmd.RegisterCommand(cli.Check)
}

// Handler holds one event-stream connection to the origin per topic and shares
// it among any number of clients. A topic is everything that asks for the same
// thing: same host, same URI, and same values of what Vary names.
//
// With a source, it is the end of the route: every GET is shared (the endpoint
// form). Without one, the next handler of the route is the source (the wrapping
// form): one line beside a site's reverse_proxy or php_fastcgi. Then only what
// is certainly a public event stream is shared, and everything else goes
// through untouched.
//
// **Clients that share a topic see the same events.** Access control belongs in
// front of this handler, and whatever an answer depends on (a cookie, a user,
// a token) must be named in Vary. The origin never sees a client's headers,
// cookies or address unless Vary names them.
//
// ### Placeholders
//
// This handler sets placeholders for other handlers of the client's request, and
// for its access log:
//
// Placeholder | Description
// ------------|-------------
// `{http.sse_fanout.topic}` | The topic's public name, as in logs and in the admin API: host, path, and its id; never a query or a value of Vary
// `{http.sse_fanout.topic.id}` | The topic's id: 12 hex digits, the same for all that share, until Caddy restarts
// `{http.sse_fanout.outcome}` | What became of the request: `fresh` (the client brought no Last-Event-ID), `resumed`, `gap`, `pending` (it left before this was known), `passed` (one to one), `rejected` (by us), `refused` (by the origin) or `multiplexed` (the stream goes on over the connection of an `sse_multiplex`)
// `{http.sse_fanout.reason}` | Why the stream ended, or why the request was passed, rejected or refused: a label of the metrics of the same name, or the verdict on the origin's answer
// `{http.sse_fanout.events}` | How many events were delivered to the client
// `{http.sse_fanout.bytes}` | How many bytes of events were delivered to the client
//
// The topic is known before the response header is written, all else when the
// request has ended, except of a request that is passed on: there it is known to
// the handlers behind.
//
// ### Events
//
// This handler emits events through the events app when the connection of a topic
// to its origin changes its state:
//
// Event | Meaning
// ------|--------
// `upstream_connected` | The origin has answered with an event stream
// `upstream_lost` | The event stream has broken or ended; it is asked for again after `delay`
// `upstream_unavailable` | The origin has not answered with an event stream; once for each outage, which `upstream_connected` ends
// `upstream_closed` | The topic is over, because of `reason`
//
// Their data are the fields of the line in the log, among them `topic`,
// `subscribers` and, where there is one, `error`.
type Handler struct {
	Options

	// The handler that answers a topic's upstream request, usually a
	// reverse_proxy. Absent means the next handler of the route.
	SourceRaw json.RawMessage `json:"source,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	sourceSegment *caddyfile.Dispenser // of the Caddyfile's source, until it is finalized
	instance
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_fanout",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up h: it loads the source and joins the lineage of its definition, which
// may have a pool of topics from an earlier configuration (see lineage.poolOf).
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	definition, err := definition(h)
	if err != nil {
		return err
	}
	byOriginal := h.SourceRaw != nil && survey.ReadsOriginalURL(h.SourceRaw) // before Caddy drops it
	if h.SourceRaw != nil {
		mod, err := ctx.LoadModule(h, "SourceRaw")
		if err != nil {
			return fmt.Errorf("loading source: %w", err)
		}
		h.source = mod.(caddyhttp.MiddlewareHandler)
	}
	if h.settings, err = settings.New(h.Options, h.wraps()); err != nil {
		return err
	}
	h.settings.ByOriginal = byOriginal
	if err := h.joinFleet(ctx, definition); err != nil {
		return err
	}
	h.door = site.NewDoor(h.server, h, h.settings)
	if err := observe.Register(ctx.GetMetricsRegistry(), process{}); err != nil {
		return err
	}
	if h.announcer, err = observe.NewAnnouncer(ctx); err != nil {
		return err
	}
	if h.server != nil {
		conns.Watch(h.server, endAllIfExiting)
		if h.server.WriteTimeout > 0 {
			h.logger.Warn("the server's write timeout cuts every stream after this time; "+
				"set stream_timeout below it, so that streams end at an event boundary and spread",
				zap.Duration("write_timeout", time.Duration(h.server.WriteTimeout)))
		}
	}
	h.lineage = joinLineage(atAddresses(h.server, definition)+"\n"+h.fleet.id(), &h.instance)
	return nil
}

// Validate reports settings that contradict each other.
func (h *Handler) Validate() error {
	return h.settings.Validate()
}

// Cleanup lets go of the topics. They go on if a newer configuration has
// inherited them, and are drained otherwise.
func (h *Handler) Cleanup() error {
	if h.lineage == nil {
		return nil
	}
	h.left.Store(true)
	err := h.lineage.leave(&h.instance)
	h.announcer.Close()
	return err
}

// definition is everything that is configured of a handler.
func definition(handler any) (string, error) {
	config, err := json.Marshal(handler)
	if err != nil {
		return "", fmt.Errorf("encoding configuration: %w", err)
	}
	return string(config), nil
}

// atAddresses is a definition of a handler and the server's addresses (its name
// shifts when other sites come and go): what tells the handler of one configuration
// that it is that of another.
func atAddresses(server *caddyhttp.Server, definition string) string {
	var addresses string
	if server != nil {
		addresses = strings.Join(server.Listen, ",")
	}
	return addresses + "\n" + definition
}

// ServeHTTP shares r, or passes it on untouched.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if q := inquiryOf(r); q != nil {
		return q.serve(&h.instance, r, next)
	}
	h.served.Store(true)
	if a := multiplex.Of(r); a != nil {
		observe.BeginStream(r, a.Alias)
	}
	p := h.lineage.poolOf(&h.instance)
	if why := pass.Why(r, h.settings, h.surroundings); why != "" {
		if why == pass.Method && h.settings.CORS.AnswersPreflight(r) {
			return h.settings.CORS.ServePreflight(w, r)
		}
		h.explainPass(p, why, r)
		return h.pass(p, w, r, next, why)
	}

	req := h.newTopicRequest(r)
	h.closeConnIfLeft(w, r)
	carrier.CloseIfUnread(w, r)
	err := p.serve(w, r, req, &h.instance)
	if why, ok := errors.AsType[pass.Reason](err); ok {
		w.Header().Del("Connection")
		return h.pass(p, w, r, next, why)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
