package ssefanout

import (
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

const (
	// frontMemory is how long a key passes whose stranger was not led to the
	// handler, and how long a handler asks nothing after frontFailures of them.
	frontMemory = time.Minute

	// frontFailures is after how many keys in a row a handler asks nothing for a
	// while, so that a ban or a rate limit on the stranger costs little.
	frontFailures = 3
)

// A front is what a handler of the wrapping form has learned of what stands in
// front of it: whether strangers are led to it.
type front struct {
	survey sync.Once
	around *survey.Surroundings

	mu sync.Mutex

	// Guarded by mu.
	failures int       // keys whose stranger was not led here since one last was
	arrived  time.Time // when one last was
	until    time.Time // nothing is asked before
	never    bool      // something around it keeps it from sharing at all
}

// surroundings returns what stands around h, and says once in the log if h can
// share nothing because of it.
func (h *Handler) surroundings() *survey.Surroundings {
	h.front.survey.Do(func() {
		h.front.around = h.door.surroundings(h)
		if never := h.front.around.Never; never != "" {
			h.front.mu.Lock()
			h.front.never = true
			h.front.mu.Unlock()
			h.logger.Warn("not sharing any request",
				zap.String("reason", never),
				zap.String("hint", "name upstreams in sse_fanout, which then decides alone, or move what depends on the client in front of it"))
		}
	})
	return h.front.around
}

// factsOf returns the facts of a request that has reached h.
func (h *Handler) factsOf(r *http.Request) request.Facts {
	return request.NewFacts(r, h.settings, h.surroundings())
}

// frontReached notes that a stranger has reached h.
func (h *Handler) frontReached() {
	f := &h.front
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures, f.arrived, f.until = 0, time.Now(), time.Time{}
}

// frontFailed notes that the stranger of a topic was not led to h, and makes the
// requests for its key pass for a while. A handler that strangers have reached just
// before goes on asking for other keys.
func (h *Handler) frontFailed(u *upstream, why string) {
	f := &h.front
	now := time.Now()
	f.mu.Lock()
	if u.pool.passing.Recall(h.frontKey(u.topic.Key())) != "" {
		f.mu.Unlock()
		return // another client of this key has noted it
	}
	u.pool.passing.Remember(h.frontKey(u.topic.Key()), pass.Front, frontMemory)
	f.failures++
	if f.failures >= frontFailures && now.Sub(f.arrived) >= frontMemory {
		f.until = now.Add(frontMemory)
	}
	f.mu.Unlock()
	if h.notices.Once(pass.Front, "") {
		h.logger.Warn("passing requests one to one, as the site does not lead strangers here",
			zap.String("topic", u.topic.Name()),
			zap.String("reason", why),
			zap.String("hint", "in the wrapping form, what stands in front is asked as a stranger without credentials: "+
				"name upstreams in sse_fanout to share behind access control, name in vary what it looks at, or set ask_from to an address that it admits"))
	}
}

// asksNothing reports whether h asks the site for no new topic now.
func (h *Handler) asksNothing() bool {
	if !h.wraps() {
		return false
	}
	f := &h.front
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.until)
}

// isShutOff reports whether h shares nothing because of what surrounds it, as far as
// is known.
func (h *Handler) isShutOff() bool {
	f := &h.front
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.never || f.failures > 0
}

// frontKey is a topic's key for the requests that come through h alone.
func (h *Handler) frontKey(key string) string {
	return h.number + key
}
