// Package site is the way into the site, which the wrapping form asks. The upstream request of
// that form is a stranger's: it is made from the topic's key alone, enters the site at its front
// door, in process, and passes everything that a client's request passes: matchers, handle
// blocks, rewrites, variables, access control. A shared stream is therefore what the whole site
// gives to a stranger who sends this key (R1).
package site

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"weak"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// A Place is a handler of one configuration, as those see it who come to it.
type Place struct {
	Server  *caddyhttp.Server
	Handler string // tells it from the other handlers of the process
	Around  *survey.Surroundings
}

// A home is the place that the stranger of a topic has reached in one configuration. Clients
// that come through another handler of the same definition do not share the topic: the site
// leads them elsewhere.
type home struct {
	server  weak.Pointer[caddyhttp.Server] // as a topic must not keep an old configuration in memory
	handler string

	around *survey.Surroundings
	facts  request.Facts
}

// leadsOn reports whether the clients of this home get the same in a newer one, with what
// stands around it and the facts found there: then their topic goes on there, with its
// history and its last id. Otherwise both are of another stream.
func (known *home) leadsOn(around *survey.Surroundings, found request.Facts) bool {
	return known.around.LeadsOn(around) && found.DiffersFrom(known.facts) == "" &&
		(around.Plain || known.around.Print == around.Print)
}

// isIn reports whether this is a home in the configuration of a server.
func (known *home) isIn(server *caddyhttp.Server) bool { return known.server == weak.Make(server) }

// ErrMoved is how a connection ends when the site has come to lead strangers elsewhere than
// the clients of the topic.
var ErrMoved = errors.New("the site leads shared requests elsewhere now")

// ErrUnsettled is an ErrMoved of what is fetched beside the shared connection, which must be of
// a configuration that the topic is in.
var ErrUnsettled = fmt.Errorf("%w", ErrMoved)

// maxHomes is how many configurations a topic remembers: reloads may come faster than
// the clients of the first one are admitted.
const maxHomes = 8

// Homes are those of a topic. While a reload is under way, clients of two configurations may
// come. The zero value is ready to use.
type Homes struct {
	mu sync.Mutex

	// Guarded by mu.
	all []home // the newest last
	via home   // that the shared connection has come through
}

// A Route is the home through which a connection has come.
type Route struct{ home home }

// Connected says through which home the shared connection has come.
func (hs *Homes) Connected(route Route) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.via = route.home
}

// in returns the home in the configuration of a server, or nil. hs.mu must be held.
func (hs *Homes) in(server *caddyhttp.Server) *home {
	i := slices.IndexFunc(hs.all, func(known home) bool { return known.isIn(server) })
	if i < 0 {
		return nil
	}
	return &hs.all[i]
}

// of returns the home that decides about the clients of a place: that in its configuration,
// or else one in another that is the same to them. It is nil if there is none. hs.mu must be
// held.
func (hs *Homes) of(place Place) *home {
	if known := hs.in(place.Server); known != nil {
		return known
	}
	i := slices.IndexFunc(hs.all, func(known home) bool { return place.Around.SameAs(known.around) })
	if i < 0 {
		return nil
	}
	return &hs.all[i]
}

// LeaveBehind reports whether there are homes, and none in the configuration of a server.
func (hs *Homes) LeaveBehind(server *caddyhttp.Server) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return len(hs.all) > 0 && hs.in(server) == nil
}

// IsVia reports whether the shared connection that there was last has come through the
// configuration of a server.
func (hs *Homes) IsVia(server *caddyhttp.Server) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return hs.via.isIn(server)
}

// AreElsewhere reports whether the stranger has been through other configurations than that
// of a server alone, or the connection goes through one, if there is one.
func (hs *Homes) AreElsewhere(server *caddyhttp.Server, connected bool) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return len(hs.all) > 0 && (hs.in(server) == nil || connected && !hs.via.isIn(server))
}

// A Judgement is about a client that has come to a topic.
type Judgement struct {
	// Why it passes, or "".
	Why pass.Reason

	// Differs names what the site has made otherwise of its request, if that is why.
	Differs string

	// Known says that the stranger has reached the client's configuration, or one that is
	// the same to it.
	Known bool

	// Settled says that the stranger has reached some configuration.
	Settled bool
}

// Judge says if a client may share the topic that has come to a place with these facts.
func (hs *Homes) Judge(place Place, facts request.Facts) Judgement {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	own := hs.of(place)
	if own == nil {
		return Judgement{Settled: len(hs.all) > 0}
	}
	j := Judgement{Known: true, Settled: true}
	if own.isIn(place.Server) && own.handler != place.Handler {
		j.Why = pass.Front
	} else if differs := facts.DiffersFrom(own.facts); differs != "" {
		j.Why, j.Differs = pass.Differs, differs
	}
	return j
}

// Settle returns the route through a place that the stranger has reached with these facts.
// It makes the place a home, if the topic goes on there and the shared connection is what is
// answered. If the topic does not go on there, the error is ErrMoved.
func (hs *Homes) Settle(place Place, found request.Facts, shared bool) (route Route, isNew bool, err error) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if known := hs.in(place.Server); known != nil {
		if differs := found.DiffersFrom(known.facts); differs != "" || known.handler != place.Handler {
			return Route{}, false, fmt.Errorf("%w: %s", ErrMoved, differs)
		}
		return Route{*known}, false, nil
	}
	if !shared {
		return Route{}, false, ErrUnsettled
	}
	if n := len(hs.all); n > 0 && !hs.all[n-1].leadsOn(place.Around, found) {
		return Route{}, false, ErrMoved
	}
	settled := home{
		server:  weak.Make(place.Server),
		handler: place.Handler,
		around:  place.Around,
		facts:   found,
	}
	hs.all = append(hs.all, settled)
	if len(hs.all) > maxHomes {
		hs.all = slices.Delete(hs.all, 0, len(hs.all)-maxHomes)
	}
	return Route{settled}, true, nil
}
