package ssefanout

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"weak"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A home is the handler of one configuration that the stranger of a topic has
// reached. Clients that come through another handler of the same definition do not
// share the topic: the site leads them elsewhere.
type home struct {
	// Weak, as a topic must not keep an old configuration in memory.
	server  weak.Pointer[caddyhttp.Server]
	handler weak.Pointer[Handler]

	around *surroundings
	facts  facts
}

// leadsOn reports whether the clients of this home get the same in a newer one, with what
// stands around it and the facts found there: then their topic goes on there, with its
// history and its last id. Otherwise both are of another stream.
func (known *home) leadsOn(around *surroundings, found facts) bool {
	return known.around.leadsOn(around) && found.differsFrom(known.facts) == "" &&
		(around.plain || known.around.print == around.print)
}

// homes are those of a topic, the newest last: while a reload is under way, clients
// of two configurations may come.
type homes []home

// maxHomes is how many configurations a topic remembers: reloads may come faster than
// the clients of the first one are admitted.
const maxHomes = 8

// in returns the home in the configuration of h, or nil.
func (hs homes) in(h *Handler) *home {
	i := slices.IndexFunc(hs, func(known home) bool { return known.server == weak.Make(h.server) })
	if i < 0 {
		return nil
	}
	return &hs[i]
}

// of returns the home that decides about the clients of h: that in its configuration,
// or else one in another that is the same to them. It is nil if there is none.
func (hs homes) of(h *Handler) *home {
	if known := hs.in(h); known != nil {
		return known
	}
	around := h.surroundings()
	i := slices.IndexFunc(hs, func(known home) bool { return around.sameAs(known.around) })
	if i < 0 {
		return nil
	}
	return &hs[i]
}

// judge says why a client passes, or "" if it may share the topic through a home of
// its own. If that is nil, the stranger has not yet reached the client's configuration.
func (hs homes) judge(a arrival) (why passReason, own *home) {
	own = hs.of(a.handler)
	switch {
	case own == nil:
		return "", nil
	case own.server == weak.Make(a.handler.server) && own.handler != weak.Make(a.handler):
		return passFront, own
	case a.facts.differsFrom(own.facts) != "":
		return passDiffers, own
	}
	return "", own
}

// errMoved is how a connection ends when the site has come to lead strangers
// elsewhere than the clients of the topic.
var errMoved = errors.New("the site leads shared requests elsewhere now")

// arrive is called when the stranger of t has reached h, with its request as the
// site has made it. An error means that t is not to be served from there.
func (t *topic) arrive(h *Handler, r *http.Request, a *answer) error {
	for _, name := range slices.AppendSeq(slices.Clone(h.varyHeaders), maps.Keys(t.request.header)) {
		if !slices.Equal(r.Header[name], t.request.header[name]) {
			// What stands in front has changed what the topic's key was made from.
			return &frontError{definite: true}
		}
	}
	found := h.factsOf(r)
	around := h.surroundings()
	h.frontReached()

	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.homes.in(h); known != nil {
		if differs := found.differsFrom(known.facts); differs != "" || known.handler != weak.Make(h) {
			return fmt.Errorf("%w: %s", errMoved, differs)
		}
		a.via = *known
		return nil
	}
	if !a.settles {
		// What is fetched must be of the configuration that the topic is in.
		t.reroute()
		return errMoved
	}
	if n := len(t.homes); n > 0 && !t.homes[n-1].leadsOn(around, found) {
		return errMoved
	}
	t.homes = append(t.homes, home{
		server:  weak.Make(h.server),
		handler: weak.Make(h),
		around:  around,
		facts:   found,
	})
	if len(t.homes) > maxHomes {
		t.homes = slices.Delete(t.homes, 0, len(t.homes)-maxHomes)
	}
	a.via = t.homes[len(t.homes)-1]
	t.signal()
	return nil
}

// isLeftBehind reports whether the newest configuration is one that the stranger of
// t has not got through.
func (t *topic) isLeftBehind() bool {
	newest := t.pool.lineage.newestHandler()
	t.mu.Lock()
	defer t.mu.Unlock()
	return newest != nil && len(t.homes) > 0 && t.homes.in(newest) == nil
}

// seek makes the upstream ask through the configuration of h, if that is the newest and
// the topic is connected through earlier ones alone.
func (t *topic) seek(h *Handler) {
	if !t.pool.opts.wrapping || !t.pool.lineage.isNewest(h) {
		return
	}
	if t.isConnectedThroughAnother(h) {
		t.reroute()
	}
}

// isConnectedThroughAnother reports whether the stranger of t has been through other
// configurations than that of h alone, or its connection goes through one.
func (t *topic) isConnectedThroughAnother(h *Handler) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.homes) > 0 && (t.homes.in(h) == nil || t.isConnected && t.via.server != weak.Make(h.server))
}

// reroute makes the upstream ask through the newest configuration.
func (t *topic) reroute() {
	select {
	case t.upstream.rerouted <- struct{}{}:
	default:
	}
}
