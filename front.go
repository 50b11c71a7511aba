package ssefanout

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// surroundings returns what stands around h, and says once in the log if h can
// share nothing because of it.
func (h *Handler) surroundings() *survey.Surroundings {
	return h.front.Surroundings(h.door, func(why string) {
		h.logger.Warn("not sharing any request",
			zap.String("reason", why),
			zap.String("hint", "name upstreams in sse_fanout, which then decides alone, or move what depends on the client in front of it"))
	})
}

// place is h as those see it who come to it.
func (h *Handler) place() site.Place {
	return site.Place{Server: h.server, Handler: h.number, Around: h.surroundings()}
}

// factsOf returns the facts of a request that has reached h.
func (h *Handler) factsOf(r *http.Request) request.Facts {
	return request.NewFacts(r, h.settings, h.surroundings())
}

// frontFailed says that the stranger of a topic was not led to h. The requests for its key
// pass for a while.
func (h *Handler) frontFailed(u *upstream, why string) {
	if h.front.Failed(&u.pool.passing, h.frontKey(u.topic.Key())) && h.notices.Once(pass.Front, "") {
		h.logger.Warn("passing requests one to one, as the site does not lead strangers here",
			zap.String("topic", u.topic.Name()),
			zap.String("reason", why),
			zap.String("hint", "in the wrapping form, what stands in front is asked as a stranger without credentials: "+
				"name upstreams in sse_fanout to share behind access control, name in vary what it looks at, or set ask_from to an address that it admits"))
	}
}

// frontKey is a topic's key for the requests that come through h alone.
func (h *Handler) frontKey(key string) string {
	return h.number + key
}
