package ssefanout

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	maphandler "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
)

// The surroundings of a handler of the wrapping form are what its server's routes
// have in front of it and behind it. They are surveyed once, when the handler is
// first asked, since only then all routes are provisioned.
type surroundings struct {
	// never says why this handler shares nothing, or is empty.
	never string

	// maps are the destinations of all maps of the server, whose values are
	// compared with the stranger's (see facts).
	maps []string

	// headers are the names of the request headers that handlers of the server
	// change. Their values are compared with the stranger's.
	headers []string

	// plain says that what stands in front treats all requests of a key alike, as
	// far as Caddy's own modules go: it leads them all where it leads the stranger.
	plain bool

	// print is a hash of all that stands in front. Two handlers with the same print
	// are reached by the same requests.
	print string

	// behind is a hash of all that stands behind.
	behind string
}

// sameAs reports whether two handlers of equal definition, in two configurations,
// are one and the same to every request: nothing around them has changed.
func (s *surroundings) sameAs(print, behind string) bool {
	return s.print == print && s.behind == behind
}

// survey finds h in the routes of a server and looks at what surrounds it.
func survey(server *caddyhttp.Server, h *Handler) *surroundings {
	s := &surroundings{}
	way := wayTo(h, server.Routes)
	if way == nil {
		s.never = "it stands in a named route, or in the routes of another handler, " +
			"where it cannot tell which requests lead to it"
		return s
	}
	all := &surveyor{server: server, options: &h.Options}
	all.collect(server)
	s.maps, s.headers = all.maps, all.headers

	behind := &surveyor{server: server, options: &h.Options, maps: all.maps, headers: all.headers}
	behind.walkBehind(way)
	if behind.unequal != "" {
		s.never = "behind it stands a matcher that can tell one client from another: " + behind.unequal
	}
	front := &surveyor{server: server, options: &h.Options, maps: all.maps, headers: all.headers}
	front.walkFront(way)
	s.plain = front.unequal == ""
	s.print, s.behind = hash(front.print.String()), hash(behind.print.String())
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
func wayTo(h *Handler, routes caddyhttp.RouteList) []turn {
	for i, route := range routes {
		for j, handler := range route.Handlers {
			if handler == caddyhttp.MiddlewareHandler(h) {
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
	server  *caddyhttp.Server
	options *Options

	maps    []string
	headers []string
	front   bool            // requests pass what is looked at
	unequal string          // the first thing that can tell one client from another
	print   strings.Builder // everything it has seen
	named   []string        // routes that it has looked at
}

// walkBehind looks at what a request may reach after the end of a way. Routes of
// one group exclude each other, and a terminal route ends all that is around it.
func (s *surveyor) walkBehind(way []turn) {
	for _, turn := range slices.Backward(way) {
		own := turn.routes[turn.route]
		s.walkHandlers(own.Handlers[turn.handler+1:])
		if own.Terminal {
			return
		}
		for _, route := range turn.routes[turn.route+1:] {
			if own.Group == "" || route.Group != own.Group {
				s.walkRoute(route)
			}
		}
	}
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
	}
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

// collect finds the destinations of maps, and the request headers that handlers
// change, in all routes of a server.
func (s *surveyor) collect(server *caddyhttp.Server) {
	var walk func(handler caddyhttp.MiddlewareHandler)
	list := func(routes caddyhttp.RouteList) {
		for _, route := range routes {
			for _, handler := range route.Handlers {
				walk(handler)
			}
		}
	}
	walk = func(handler caddyhttp.MiddlewareHandler) {
		switch handler := handler.(type) {
		case *maphandler.Handler:
			s.maps = append(s.maps, handler.Destinations...)
		case *headers.Handler:
			s.collectHeaders(handler.Request)
		default:
			eachRouteList(reflect.ValueOf(handler), list)
		}
	}
	list(server.Routes)
	for _, route := range server.NamedRoutes {
		list(caddyhttp.RouteList{*route})
	}
	for _, names := range []*[]string{&s.maps, &s.headers} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
}

// collectHeaders notes the headers that are changed. A placeholder as the value of a
// harmless header that tells of the network (an address, a trace) is the operator's
// business: every client has another.
func (s *surveyor) collectHeaders(ops *headers.HeaderOps) {
	if ops == nil {
		return
	}
	changed := slices.Clone(ops.Delete)
	for _, values := range []map[string][]string{ops.Add, ops.Set} {
		for name, values := range values {
			client := slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "{") })
			if !client || negotiates(name) || !harmless(canonicalHeader(name)) {
				changed = append(changed, name)
			}
		}
	}
	for name := range ops.Replace {
		changed = append(changed, name)
	}
	for _, name := range changed {
		if !strings.Contains(name, "*") {
			s.headers = append(s.headers, canonicalHeader(name))
			continue
		}
		// A wildcard deletes, or replaces in, whatever a client has.
		for harmless := range harmlessHeaders {
			if matchesWildcard(name, harmless) {
				s.headers = append(s.headers, harmless)
			}
		}
	}
}

// matchesWildcard reports whether a header name, in canonical form, is among those
// that a pattern of the headers handler means.
func matchesWildcard(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	middle := strings.Trim(pattern, "*")
	switch begins, ends := strings.HasPrefix(pattern, "*"), strings.HasSuffix(pattern, "*"); {
	case begins && ends:
		return strings.Contains(name, middle)
	case begins:
		return strings.HasSuffix(name, middle)
	case ends:
		return strings.HasPrefix(name, middle)
	}
	return name == middle
}

// negotiates reports whether a header says what its client would like to get.
func negotiates(name string) bool {
	name = canonicalHeader(name)
	return strings.HasPrefix(name, "Accept") || strings.HasPrefix(name, "Sec-Ch-") || name == "User-Agent" ||
		name == "Origin" || name == "Referer"
}

// unequalMatcher returns the name of a matcher in a set that may match for one
// client and not for another with the same key, or "". A set with a matcher that
// matches for nobody who shares is equal for all.
func (s *surveyor) unequalMatcher(set []any) string {
	unequal := ""
	for _, m := range set {
		if s.matchesNobody(m) {
			return ""
		}
		if unequal == "" && !s.equal(m) {
			unequal = strings.TrimPrefix(moduleID(m), "http.matchers.")
		}
	}
	return unequal
}

// equal reports whether a matcher sees the same in all requests that share.
func (s *surveyor) equal(m any) bool {
	switch m := m.(type) {
	case *caddyhttp.MatchNot:
		return !slices.ContainsFunc(m.MatcherSets, func(set caddyhttp.MatcherSet) bool { return s.unequalMatcher(set) != "" })
	case caddyhttp.MatchNot:
		return s.equal(&m)
	case *caddyhttp.MatchHeader:
		return s.equalHeaders(*m)
	case caddyhttp.MatchHeader:
		return s.equalHeaders(m)
	}
	switch moduleID(m) {
	case "http.matchers.path_regexp":
		return true
	case "http.matchers.host", "http.matchers.path", "http.matchers.method", "http.matchers.query",
		"http.matchers.url_pattern", "http.matchers.file":
		return s.equalPlaceholders(m)
	case "http.matchers.vars":
		return s.equalVariables(m) && s.equalPlaceholders(m)
	case "http.matchers.vars_regexp":
		return s.equalVariables(m) // its patterns have braces of their own
	case "http.matchers.protocol":
		return slices.Contains([]string{`"http"`, `"https"`}, asJSON(m))
	}
	return false
}

// equalVariables reports whether the variables that a matcher looks at are equal for
// all that share.
func (s *surveyor) equalVariables(m any) bool {
	var byName map[string]any
	if err := json.Unmarshal([]byte(asJSON(m)), &byName); err != nil {
		return false
	}
	for name := range byName {
		if found := placeholder.FindStringSubmatch(name); found != nil {
			if !s.equalPlaceholder(found[1]) {
				return false
			}
		} else if ownVariable(name) {
			return false
		}
	}
	return true
}

// equalHeaders reports whether all that share have the same of these headers: vary
// names them, the site sets them, or no client that shares can carry them.
func (s *surveyor) equalHeaders(fields caddyhttp.MatchHeader) bool {
	for name := range fields {
		compared := slices.Contains(s.options.varyHeaders, canonicalHeader(name)) || slices.Contains(s.headers, canonicalHeader(name))
		if canonicalHeader(name) != "Host" && !compared && !s.absent(name) {
			return false
		}
	}
	return s.equalPlaceholders(fields)
}

// matchesNobody reports whether a matcher needs a header that no client that shares
// can carry, as those for WebSocket do.
func (s *surveyor) matchesNobody(m any) bool {
	switch m := m.(type) {
	case *caddyhttp.MatchHeader:
		return s.matchesNobody(*m)
	case caddyhttp.MatchHeader:
		for name, values := range m {
			if values != nil && s.absent(name) || needsWebSocket(name, values) {
				return true
			}
		}
	case *caddyhttp.MatchHeaderRE:
		for name := range *m {
			if s.absent(name) {
				return true
			}
		}
	}
	return false
}

// needsWebSocket reports whether a header names a WebSocket, as those do that pass.
func needsWebSocket(name string, values []string) bool {
	other := func(value string) bool { return !strings.EqualFold(value, "websocket") }
	return canonicalHeader(name) == "Upgrade" && len(values) > 0 && !slices.ContainsFunc(values, other)
}

// absent reports whether a request with a header is never shared.
func (s *surveyor) absent(name string) bool {
	name = canonicalHeader(name)
	return !s.options.strip && name != "Host" && !harmless(name) &&
		!slices.Contains(s.options.varyHeaders, name) && !slices.Contains(s.headers, name)
}

var placeholder = regexp.MustCompile(`\{([^{}\s"]+)\}`)

// equalPlaceholders reports whether the placeholders that a matcher has are equal
// for all that share. A vars matcher names variables, too, and placeholders as
// their names.
func (s *surveyor) equalPlaceholders(m any) bool {
	for _, found := range placeholder.FindAllStringSubmatch(asJSON(m), -1) {
		if !s.equalPlaceholder(found[1]) {
			return false
		}
	}
	return true
}

func (s *surveyor) equalPlaceholder(name string) bool {
	if slices.Contains(s.maps, name) || slices.Contains(s.options.varyReplacer, name) {
		return true
	}
	if variable, ok := strings.CutPrefix(name, "http.vars."); ok {
		return !ownVariable(variable)
	}
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return slices.ContainsFunc([]string{"env.", "system.", "http.request.uri", "http.request.orig_uri",
		"http.request.host", "http.request.port", "http.request.scheme", "http.request.method", "http.matchers.file."}, begins)
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

func moduleID(v any) string {
	if m, ok := v.(caddy.Module); ok {
		return string(m.CaddyModule().ID)
	}
	return fmt.Sprintf("%T", v)
}

func asJSON(v any) string {
	encoded, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(encoded)
}
