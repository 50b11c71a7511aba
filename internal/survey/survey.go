// Package survey looks at what the routes of a server have around a handler of the
// wrapping form: what stands in front of it, what stands behind, and what of that can tell
// one client from another.
package survey

import (
	"crypto/sha256"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Surroundings of a handler of the wrapping form are what its server's routes
// have in front of it and behind it. They are surveyed once, when the handler is
// first asked, since only then all routes are provisioned.
type Surroundings struct {
	// Never says why this handler shares nothing, or is empty.
	Never string

	// Maps are the destinations of all maps of the server, whose values are
	// compared with the stranger's (see request.Facts).
	Maps []string

	// Headers are the names of the request headers that handlers of the server
	// change. Their values are compared with the stranger's.
	Headers []string

	// Variables are those of Caddy's own names that the site sets itself.
	Variables []string

	// Plain says that what stands in front treats all requests of a key alike, as
	// far as Caddy's own modules go: it leads them all where it leads the stranger.
	Plain bool

	// Print is a hash of all that stands in front. Two handlers with the same print
	// are reached by the same requests.
	Print string

	// Behind is a hash of all that stands behind.
	Behind string

	// Terms is a hash of whom the server admits, and whom it trusts to tell who the
	// client is. Matchers in front decide by it.
	Terms string
}

// SameAs reports whether two handlers of equal definition, in two configurations,
// are one and the same to every request: nothing around them has changed.
func (s *Surroundings) SameAs(other *Surroundings) bool {
	return s.Print == other.Print && s.LeadsOn(other)
}

// LeadsOn reports whether clients who were led to one of two handlers, and who are led to
// the other all alike, get there what they would get from the first.
func (s *Surroundings) LeadsOn(other *Surroundings) bool {
	return s.Behind == other.Behind && s.Terms == other.Terms
}

// Vary is what the key of a topic has of the requests that share it.
type Vary struct {
	Headers      []string // in canonical form
	Placeholders []string // without braces

	// Strip says that requests share whatever they carry.
	Strip bool
}

// Around finds h in the routes of a server and looks at what surrounds it.
func Around(server *caddyhttp.Server, h caddyhttp.MiddlewareHandler, vary Vary) *Surroundings {
	s := &Surroundings{}
	way := wayTo(h, server.Routes)
	if way == nil {
		s.Never = "it stands in a named route, or in the routes of another handler, " +
			"where it cannot tell which requests lead to it"
		return s
	}
	all := &surveyor{server: server, vary: vary}
	all.collect(server)
	s.Maps, s.Headers, s.Variables = all.maps, all.headers, all.variables

	behind := &surveyor{server: server, vary: vary, maps: all.maps, headers: all.headers}
	behind.walkBehind(way)
	if behind.unequal != "" {
		s.Never = "something behind it can tell one client from another: " + behind.unequal
	}
	front := &surveyor{server: server, vary: vary, maps: all.maps, headers: all.headers}
	front.walkFront(way)
	s.Plain = front.unequal == ""
	terms := &surveyor{server: server}
	terms.describeTerms()
	s.Print, s.Behind, s.Terms = hash(front.print.String()), hash(behind.print.String()), hash(terms.print.String())
	return s
}

// A turn is one step of the way to a handler: which handler of which route of a
// list leads on.
type turn struct {
	routes         caddyhttp.RouteList
	route, handler int
}

// wayTo returns the way to h from the outermost routes to its own, through
// subroutes alone, or nil if there is none.
func wayTo(h caddyhttp.MiddlewareHandler, routes caddyhttp.RouteList) []turn {
	for i, route := range routes {
		for j, handler := range route.Handlers {
			if handler == h {
				return []turn{{routes, i, j}}
			}
			if sub, ok := handler.(*caddyhttp.Subroute); ok {
				if way := wayTo(h, sub.Routes); way != nil {
					return append([]turn{{routes, i, j}}, way...)
				}
			}
		}
	}
	return nil
}

// A surveyor looks at routes and notes what it finds.
type surveyor struct {
	server *caddyhttp.Server
	vary   Vary

	maps, headers, variables []string

	front   bool            // requests pass what is looked at
	unequal string          // the first thing that can tell one client from another
	print   strings.Builder // everything it has seen
	named   []string        // routes that it has looked at

	// gate is a handler behind that asks somebody else, and by whose answer a request
	// may go on: forward_auth is one.
	gate string
}

// walkBehind looks at what a request may reach after the end of a way. Routes of
// one group exclude each other, a terminal route ends all that is around it, and
// nothing is behind a handler that answers all that come to it.
func (s *surveyor) walkBehind(way []turn) {
	for _, turn := range slices.Backward(way) {
		own := turn.routes[turn.route]
		rest := own.Handlers[turn.handler+1:]
		s.walkHandlers(rest)
		if own.Terminal || answersAll(rest) {
			return
		}
		for _, route := range turn.routes[turn.route+1:] {
			if own.Group != "" && route.Group == own.Group {
				continue
			}
			s.walkRoute(route)
			if len(route.MatcherSets) == 0 && (route.Terminal || answersAll(route.Handlers)) {
				return
			}
		}
	}
}

// answersAll reports whether one of the handlers answers every request that comes to
// it, and calls none after it.
func answersAll(handlers []caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(handlers, func(handler caddyhttp.MiddlewareHandler) bool {
		switch handler := handler.(type) {
		case *reverseproxy.Handler:
			return len(handler.HandleResponse) == 0
		case *caddyhttp.StaticResponse:
			_, err := strconv.Atoi(string(handler.StatusCode))
			return err == nil && handler.StatusCode != "103" || handler.StatusCode == "" // 103 goes on
		}
		return false
	})
}

// walkFront looks at what a request passes on a way. A route that is terminal, or
// of the group of the route that leads on, has not served a request that goes on.
func (s *surveyor) walkFront(way []turn) {
	s.front = true
	for _, turn := range way {
		own := turn.routes[turn.route]
		for _, route := range turn.routes[:turn.route] {
			s.walkMatchers(route.MatcherSets)
			if !route.Terminal && (own.Group == "" || route.Group != own.Group) {
				s.walkHandlers(route.Handlers)
			}
		}
		s.walkMatchers(own.MatcherSets)
		s.walkHandlers(own.Handlers[:turn.handler])
	}
}

// leadsAllAlike has the handlers of Caddy's that lead all requests on alike, or
// whose nested routes say where to.
var leadsAllAlike = map[string]bool{
	"http.handlers.encode":          true,
	"http.handlers.error":           true,
	"http.handlers.file_server":     true,
	"http.handlers.headers":         true,
	"http.handlers.intercept":       true,
	"http.handlers.invoke":          true,
	"http.handlers.log_append":      true,
	"http.handlers.map":             true,
	"http.handlers.metrics":         true,
	"http.handlers.push":            true,
	"http.handlers.request_body":    true,
	"http.handlers.rewrite":         true,
	"http.handlers.static_response": true,
	"http.handlers.subroute":        true,
	"http.handlers.templates":       true,
	"http.handlers.tracing":         true,
	"http.handlers.vars":            true,
}

func (s *surveyor) walkRoute(route caddyhttp.Route) {
	s.walkMatchers(route.MatcherSets)
	s.walkHandlers(route.Handlers)
}

func (s *surveyor) walkMatchers(sets caddyhttp.MatcherSets) {
	for _, set := range sets {
		if unequal := s.unequalMatcher(set); unequal != "" {
			s.note(unequal)
		}
	}
	s.describe(sets)
}

// walkHandlers looks at handlers and at the routes within them.
func (s *surveyor) walkHandlers(handlers []caddyhttp.MiddlewareHandler) {
	for _, handler := range handlers {
		id := moduleID(handler)
		if s.front && !leadsAllAlike[id] {
			s.note(id)
		}
		if s.gate != "" {
			s.note(s.gate)
		}
		s.describe(id)
		if invoke, ok := handler.(*caddyhttp.Invoke); ok {
			s.walkNamed(invoke.Name)
			continue
		}
		nested := 0
		eachRouteList(reflect.ValueOf(handler), func(routes caddyhttp.RouteList) {
			nested++
			for _, route := range routes {
				s.walkRoute(route)
			}
		})
		if nested == 0 || !leadsAllAlike[id] {
			s.describe(handler)
		}
		if nested == 0 && s.dependsOnClient(id, handler) {
			s.note(id)
		}
		if proxy, ok := handler.(*reverseproxy.Handler); ok && len(proxy.HandleResponse) > 0 && !s.front {
			s.gate = id
		}
	}
}

// dependsOnClient reports whether what a handler makes of a request, where it sends
// it, or what it answers, depends on the client by a placeholder. What a reverse_proxy tells
// its upstream by one is the operator's business, unless the placeholder is what the site
// has found out in front.
func (s *surveyor) dependsOnClient(id string, handler caddyhttp.MiddlewareHandler) bool {
	switch handler := handler.(type) {
	case *reverseproxy.Handler:
		if s.front {
			return false // it is noted as what it is
		}
		// From a proxy that only it trusts, it passes X-Forwarded-* on.
		return len(handler.TrustedProxies) > 0 || s.namesFindings(handler) || !s.equalProxy(handler)
	case *headers.Handler:
		if s.front {
			return handler.Request != nil && !s.equalPlaceholders(handler.Request)
		}
	}
	if !s.front && tellsNobody[id] {
		return false
	}
	if id == "http.handlers.templates" && strings.Contains(asJSON(handler), "text/event-stream") {
		return true // they see the request
	}
	return !s.equalPlaceholders(handler)
}

// tellsNobody has the handlers whose placeholders end up in logs and traces.
var tellsNobody = map[string]bool{
	"http.handlers.log_append": true,
	"http.handlers.tracing":    true,
}

// equalProxy reports whether a reverse_proxy does the same for all that share, but for the
// headers that it adds to the request.
func (s *surveyor) equalProxy(handler *reverseproxy.Handler) bool {
	for _, upstream := range handler.Upstreams {
		if !s.equalPlaceholders(upstream.Dial) {
			return false
		}
	}
	if handler.Headers != nil && !s.equalPlaceholders(handler.Headers.Response) {
		return false
	}
	if multi, ok := handler.DynamicUpstreams.(*reverseproxy.MultiUpstreams); ok {
		sources := reflect.ValueOf(multi).Elem().FieldByName(sourcesField)
		if !sources.IsValid() {
			return false
		}
		described := new(strings.Builder)
		printer := printer{w: described}
		printer.value(sources, 0)
		if !s.equalPlaceholders(described.String()) {
			return false
		}
	}
	return s.equalPlaceholders(handler.DynamicUpstreams) && s.equalPlaceholders(handler.Transport) &&
		s.equalPlaceholders(handler.Rewrite) && s.equalPlaceholders(handler.LoadBalancing)
}

// namesFindings reports whether a handler uses what handlers and matchers in front have
// found out about a client.
func (s *surveyor) namesFindings(handler any) bool {
	for _, found := range placeholder.FindAllStringSubmatch(asJSON(handler), -1) {
		for _, prefix := range []string{"http.auth.", "http.regexp.", "http.reverse_proxy."} {
			if strings.HasPrefix(found[1], prefix) && !slices.Contains(s.vary.Placeholders, found[1]) {
				return true
			}
		}
	}
	return false
}

// walkNamed looks at a named route, once: it may invoke itself.
func (s *surveyor) walkNamed(name string) {
	route := s.server.NamedRoutes[name]
	if route == nil || slices.Contains(s.named, name) {
		return
	}
	s.named = append(s.named, name)
	s.walkRoute(*route)
}

func (s *surveyor) note(unequal string) {
	if s.unequal == "" {
		s.unequal = unequal
	}
}

// describe adds a value to the print: its configuration, as far as it is exported.
func (s *surveyor) describe(v any) {
	describe := printer{w: &s.print}
	describe.value(reflect.ValueOf(v), 0)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return string(sum[:])
}
