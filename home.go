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

	print, behind string // of what stands around it (see surroundings)
	facts         facts
}

// serves reports whether a connection that has come through this home brings what one
// through the configuration of h would bring.
func (known *home) serves(h *Handler) bool {
	return known != nil && (known.server == weak.Make(h.server) || h.surroundings().sameAs(known.print, known.behind))
}

// homes are those of a topic, the newest last: while a reload is under way, clients
// of two configurations may come.
type homes []home

// maxHomes is how many configurations a topic remembers.
const maxHomes = 2

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
	i := slices.IndexFunc(hs, func(known home) bool { return around.sameAs(known.print, known.behind) })
	if i < 0 {
		return nil
	}
	return &hs[i]
}

// judge says whether a client may share: settled, or why it passes. If neither is
// known, the stranger has not yet reached the configuration of the client.
func (hs homes) judge(a arrival) (why passReason, settled bool) {
	known := hs.of(a.handler)
	switch {
	case known == nil && len(hs) > 0 && !a.newest:
		return passFront, true // of a configuration that has been replaced
	case known == nil:
		return "", false
	case known.server == weak.Make(a.handler.server) && known.handler != weak.Make(a.handler):
		return passFront, true
	case a.facts.differsFrom(known.facts) != "":
		return passDiffers, true
	}
	return "", true
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
	if n := len(t.homes); n > 0 && !around.plain && around.print != t.homes[n-1].print {
		return errMoved
	}
	t.homes = append(t.homes, home{
		server:  weak.Make(h.server),
		handler: weak.Make(h),
		print:   around.print,
		behind:  around.behind,
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

// seek makes the upstream ask through the configuration of h, which is the newest,
// if the topic is connected through earlier ones alone.
func (t *topic) seek(h *Handler) {
	t.mu.Lock()
	due := len(t.homes) > 0 && (t.homes.in(h) == nil || t.isConnected && t.via.server != weak.Make(h.server))
	t.mu.Unlock()
	if due {
		t.reroute()
	}
}

// reroute makes the upstream ask through the newest configuration.
func (t *topic) reroute() {
	select {
	case t.upstream.rerouted <- struct{}{}:
	default:
	}
}
