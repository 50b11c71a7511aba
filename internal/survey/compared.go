package survey

import (
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	maphandler "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

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
		case *caddyhttp.VarsMiddleware:
			for name := range *handler {
				if OwnVariable(name) {
					s.variables = append(s.variables, name)
				}
			}
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
			if !client || negotiates(name) || !fields.Harmless(fields.Canonical(name)) {
				changed = append(changed, name)
			}
		}
	}
	for name := range ops.Replace {
		changed = append(changed, name)
	}
	for _, name := range changed {
		if !strings.Contains(name, "*") {
			s.headers = append(s.headers, fields.Canonical(name))
			continue
		}
		// A wildcard deletes, or replaces in, whatever a client has.
		for harmless := range fields.HarmlessNames() {
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
	name = fields.Canonical(name)
	return strings.HasPrefix(name, "Accept") || strings.HasPrefix(name, "Sec-Ch-") || name == "User-Agent" ||
		name == "Origin" || name == "Referer"
}
