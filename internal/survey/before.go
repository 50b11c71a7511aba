package survey

import (
	"reflect"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

// Before is what may have changed the header of a request by the time that it has reached a
// handler.
type Before struct {
	// Changed reports whether the site may have set, changed or removed a field.
	Changed func(name string) bool

	// Unknown is a module that is not Caddy's own, which may change anything; or empty.
	Unknown string
}

// caddysHandlers are where handlers are from whose changes are known: but for headers, in
// routes of their own too, they change no field that a client could have sent.
const caddysHandlers = "github.com/caddyserver/caddy/v2/modules/"

// ChangedBefore looks at what requests for h may have passed: if that cannot be told,
// everything that the server has.
func ChangedBefore(server *caddyhttp.Server, h caddyhttp.MiddlewareHandler) Before {
	b := &beforeSurveyor{}
	if way := wayTo(h, server.Routes); way != nil {
		for _, turn := range way {
			own := turn.routes[turn.route]
			for _, route := range turn.routes[:turn.route] {
				if !route.Terminal && (own.Group == "" || route.Group != own.Group) {
					b.handlers(route.Handlers)
				}
			}
			b.handlers(own.Handlers[:turn.handler])
		}
	} else {
		b.routes(server.Routes)
	}
	for _, route := range server.NamedRoutes {
		b.routes(caddyhttp.RouteList{*route})
	}
	return Before{Changed: b.changed, Unknown: b.unknown}
}

type beforeSurveyor struct {
	patterns []string
	unknown  string
}

func (b *beforeSurveyor) routes(routes caddyhttp.RouteList) {
	for _, route := range routes {
		b.handlers(route.Handlers)
	}
}

func (b *beforeSurveyor) handlers(handlers []caddyhttp.MiddlewareHandler) {
	for _, handler := range handlers {
		t := reflect.Indirect(reflect.ValueOf(handler)).Type()
		switch handler := handler.(type) {
		case *headers.Handler:
			b.ops(handler.Request)
		default:
			if pkg := t.PkgPath() + "/"; !isCaddys(pkg) && b.unknown == "" {
				b.unknown = moduleID(handler)
			}
			eachRouteList(reflect.ValueOf(handler), b.routes)
		}
	}
}

// isCaddys reports whether a package, with a slash at the end, is Caddy's or of this module.
func isCaddys(pkg string) bool {
	const own = "github.com/sse-fanout/caddy-sse-fanout/"
	return slices.ContainsFunc([]string{caddysHandlers, own}, func(prefix string) bool {
		return len(pkg) >= len(prefix) && pkg[:len(prefix)] == prefix
	})
}

func (b *beforeSurveyor) ops(ops *headers.HeaderOps) {
	if ops == nil {
		return
	}
	b.patterns = append(b.patterns, ops.Delete...)
	for _, values := range []map[string][]string{ops.Add, ops.Set} {
		for name := range values {
			b.patterns = append(b.patterns, name)
		}
	}
	for name := range ops.Replace {
		b.patterns = append(b.patterns, name)
	}
}

func (b *beforeSurveyor) changed(name string) bool {
	return slices.ContainsFunc(b.patterns, func(pattern string) bool {
		return fields.Canonical(pattern) == fields.Canonical(name) || matchesWildcard(pattern, name)
	})
}
