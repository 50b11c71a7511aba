package ssefanout

import (
	"net/http"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// An instance is a handler of one configuration, as it is when it is provisioned.
type instance struct {
	source    caddyhttp.MiddlewareHandler // nil: the next handler of the route
	settings  *settings.Settings
	server    *caddyhttp.Server
	door      site.Door // of server
	logger    *zap.Logger
	announcer *observe.Announcer
	fleet     *membership     // nil: each node asks the origin itself
	sockets   carrier.Sockets // nil: the kernel's

	lineage *lineage
	number  string               // tells it from the other handlers of the process, set by joinLineage
	served  atomic.Bool          // a client's request has come: the configuration has started
	left    atomic.Bool          // cleaned up
	pool    atomic.Pointer[pool] // set by lineage
	front   site.Front
	notices observe.Notices // of this configuration alone
}

// wraps reports whether this is the wrapping form.
func (h *instance) wraps() bool {
	return h.source == nil
}

// isStarted reports whether the configuration of h has taken effect.
func (h *instance) isStarted() bool {
	return h.served.Load() || h.door != nil && h.door.IsActive()
}

// closeConnIfLeft makes the answer the last of its connection when the server of
// h is being shut down. A connection of HTTP/2 that was only just made then is
// not told otherwise to end: Caddy would wait for it as long as its client likes,
// and its client would go on asking a configuration that is gone.
func (h *instance) closeConnIfLeft(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 3 && (h.left.Load() || caddy.Exiting()) {
		w.Header().Set("Connection", "close")
	}
}

// surroundings returns what stands around h, and says once in the log if h can
// share nothing because of it.
func (h *instance) surroundings() *survey.Surroundings {
	return h.front.Surroundings(h.door, func(why string) {
		h.logger.Warn("not sharing any request",
			zap.String("reason", why),
			zap.String("hint", "name upstreams in sse_fanout, which then decides alone, or move what depends on the client in front of it"))
	})
}

// place is h as those see it who come to it.
func (h *instance) place() site.Place {
	return site.Place{Server: h.server, Handler: h.number, Around: h.surroundings()}
}

// factsOf returns the facts of a request that has reached h.
func (h *instance) factsOf(r *http.Request) request.Facts {
	return request.NewFacts(r, h.settings, h.surroundings())
}

// frontFailed says that the stranger of a topic was not led to h. The requests for its key
// pass for a while.
func (h *instance) frontFailed(p *pool, t *relay.Topic, why string) {
	if h.front.Failed(&p.passing, h.frontKey(t.Key())) && h.notices.Once(pass.Front, "") {
		h.logger.Warn("passing requests one to one, as the site does not lead strangers here",
			zap.String("topic", t.Name()),
			zap.String("reason", why),
			zap.String("hint", "in the wrapping form, what stands in front is asked as a stranger without credentials: "+
				"name upstreams in sse_fanout to share behind access control, name in vary what it looks at, or set ask_from to an address that it admits"))
	}
}

// frontKey is a topic's key for the requests that come through h alone.
func (h *instance) frontKey(key string) string {
	return h.number + key
}
