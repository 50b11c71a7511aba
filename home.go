package ssefanout

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"weak"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// A home is the handler of one configuration that the stranger of a topic has
// reached. Clients that come through another handler of the same definition do not
// share the topic: the site leads them elsewhere.
type home struct {
	// Weak, as a topic must not keep an old configuration in memory.
	server  weak.Pointer[caddyhttp.Server]
	handler weak.Pointer[Handler]

	around *survey.Surroundings
	facts  facts
}

// leadsOn reports whether the clients of this home get the same in a newer one, with what
// stands around it and the facts found there: then their topic goes on there, with its
// history and its last id. Otherwise both are of another stream.
func (known *home) leadsOn(around *survey.Surroundings, found facts) bool {
	return known.around.LeadsOn(around) && found.differsFrom(known.facts) == "" &&
		(around.Plain || known.around.Print == around.Print)
}

// isIn reports whether this is a home in the configuration of h.
func (known *home) isIn(h *Handler) bool { return known.server == weak.Make(h.server) }

// homes are those of a topic, the newest last: while a reload is under way, clients
// of two configurations may come.
type homes []home

// maxHomes is how many configurations a topic remembers: reloads may come faster than
// the clients of the first one are admitted.
const maxHomes = 8

// in returns the home in the configuration of h, or nil.
func (hs homes) in(h *Handler) *home {
	i := slices.IndexFunc(hs, func(known home) bool { return known.isIn(h) })
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
	i := slices.IndexFunc(hs, func(known home) bool { return around.SameAs(known.around) })
	if i < 0 {
		return nil
	}
	return &hs[i]
}

// An arrival is a client that has come to a topic of the wrapping form, and what decides
// whether it may share it. For the endpoint form, it is the handler alone.
type arrival struct {
	handler *Handler
	facts   facts

	mayJoinAgain bool              // should the topic turn out to be over
	asking       *multiplex.Asking // it is a stream of a connection that reads topics itself, or nil

	sought bool // it has waited for long, and the topic was made to look
}

// key is a topic's key for the clients that come through the same handler with the same
// facts.
func (a *arrival) key(of string) string {
	var k keyBuilder
	k.addValues(a.facts)
	return a.handler.frontKey(string(k.b) + of)
}

// errOutdated is what a client gets to hear whose configuration has been replaced: it
// finds the new one.
var errOutdated = errors.New("coming through a configuration that has been replaced")

// Judge implements relay.Gate.
func (a *arrival) Judge(t *relay.Topic, late, unled bool) (why error, known bool) {
	u := upstreamOf(t)
	if late && !a.sought {
		a.sought = true
		u.seek(a.handler) // the new configuration's connection may have failed
	}
	outdated := !u.pool.lineage.isNewest(a.handler)
	passed, own, settled := u.judge(a)
	switch {
	case passed == passDiffers:
		u.pool.passing.remember(a.key(t.Key()), passDiffers, frontMemory)
		u.pool.explainDiffers(t, a.facts.differsFrom(own.facts))
		return passed, true
	case passed != "":
		a.handler.frontFailed(u, "the stranger is led to another handler")
		return passed, true
	case own != nil:
		return nil, true
	case settled && outdated:
		return errOutdated, true
	case unled:
		a.handler.frontFailed(u, "the site has not answered the stranger in time")
		return passFront, true
	}
	return nil, false
}

// judge says why a client passes, or "" if it may share the topic through a home of
// its own. If that is nil, the stranger has not yet reached the client's configuration;
// settled tells whether it has reached another.
func (u *upstream) judge(a *arrival) (why passReason, own *home, settled bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	settled = len(u.homes) > 0
	if found := u.homes.of(a.handler); found != nil {
		known := *found
		own = &known
	}
	switch {
	case own == nil:
		return "", nil, settled
	case own.isIn(a.handler) && own.handler != weak.Make(a.handler):
		return passFront, own, settled
	case a.facts.differsFrom(own.facts) != "":
		return passDiffers, own, settled
	}
	return "", own, settled
}

// errMoved is how a connection ends when the site has come to lead strangers
// elsewhere than the clients of the topic.
var errMoved = errors.New("the site leads shared requests elsewhere now")

// arrive is called when the stranger of a topic has reached h, with its request as the
// site has made it. An error means that the topic is not to be served from there.
func (u *upstream) arrive(h *Handler, r *http.Request, q *inquiry) error {
	for _, name := range slices.AppendSeq(slices.Clone(h.varyHeaders), maps.Keys(u.request.header)) {
		if !slices.Equal(r.Header[name], u.request.header[name]) {
			// What stands in front has changed what the topic's key was made from.
			return &frontError{definite: true}
		}
	}
	found := h.factsOf(r)
	around := h.surroundings()
	h.frontReached()
	isNew, err := u.settle(h, around, found, q)
	if isNew {
		u.topic.Changed()
	}
	return err
}

// settle makes h a home of the topic, if that goes on there.
func (u *upstream) settle(h *Handler, around *survey.Surroundings, found facts, q *inquiry) (isNew bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if known := u.homes.in(h); known != nil {
		if differs := found.differsFrom(known.facts); differs != "" || known.handler != weak.Make(h) {
			return false, fmt.Errorf("%w: %s", errMoved, differs)
		}
		q.via = *known
		return false, nil
	}
	if !q.settles {
		// What is fetched must be of the configuration that the topic is in.
		u.topic.Reroute()
		return false, errMoved
	}
	if n := len(u.homes); n > 0 && !u.homes[n-1].leadsOn(around, found) {
		return false, errMoved
	}
	q.via = home{
		server:  weak.Make(h.server),
		handler: weak.Make(h),
		around:  around,
		facts:   found,
	}
	u.homes = append(u.homes, q.via)
	if len(u.homes) > maxHomes {
		u.homes = slices.Delete(u.homes, 0, len(u.homes)-maxHomes)
	}
	return true, nil
}

// Interface guards
var _ relay.Gate = (*arrival)(nil)
