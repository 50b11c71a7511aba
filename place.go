package ssefanout

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// placeOf tells the place of a handler that is being provisioned: the matchers that
// a request has passed when it gets there, from the outermost route to its own. Two
// handlers that look the same, such as one line in each of two sites, differ by it.
// ancestry is that of the handler (caddy.Context.Modules).
//
// A handler in a named route, or in routes of a module other than subroute, has no
// place.
func placeOf(server *caddyhttp.Server, ancestry []caddy.Module) (place string, ok bool) {
	app := slices.IndexFunc(ancestry, func(m caddy.Module) bool { _, ok := m.(*caddyhttp.App); return ok })
	if server == nil || app < 0 {
		return "", false
	}
	type step struct {
		Errors   bool // it is a route for errors
		Matchers [][]matcher
	}
	var steps []step
	enter := func(routes caddyhttp.RouteList, errors *caddyhttp.HTTPErrorConfig) bool {
		route := underWay(routes)
		handlesErrors := route == nil && errors != nil
		if handlesErrors {
			route = underWay(errors.Routes)
		}
		if route == nil {
			return false
		}
		steps = append(steps, step{handlesErrors, matchersOf(route.MatcherSets)})
		return true
	}
	ok = enter(server.Routes, server.Errors)
	for _, m := range ancestry[app+1 : len(ancestry)-1] {
		subroute, isSubroute := m.(*caddyhttp.Subroute)
		ok = ok && isSubroute && enter(subroute.Routes, subroute.Errors)
	}
	encoded, err := json.Marshal(steps)
	return string(encoded), ok && err == nil
}

// underWay returns the route whose handlers Caddy is about to provision: it does that
// in order, and drops their raw form when it is done with a route.
func underWay(routes caddyhttp.RouteList) *caddyhttp.Route {
	i := slices.IndexFunc(routes, func(r caddyhttp.Route) bool { return r.HandlersRaw != nil })
	if i < 0 {
		return nil
	}
	return &routes[i]
}

type matcher struct {
	ID     string
	Config any
}

// matchersOf returns the matchers of sets in an order that does not change: Caddy
// keeps those of a set in that of a map.
func matchersOf(loaded []caddyhttp.MatcherSet) [][]matcher {
	sets := make([][]matcher, len(loaded))
	for i, set := range loaded {
		for _, m := range set {
			config := m
			if not, ok := m.(*caddyhttp.MatchNot); ok {
				config = matchersOf(not.MatcherSets) // as JSON, a loaded one is null
			}
			sets[i] = append(sets[i], matcher{caddy.GetModuleID(m), config})
		}
		slices.SortFunc(sets[i], func(a, b matcher) int { return strings.Compare(a.ID, b.ID) })
	}
	return sets
}
