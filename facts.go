package ssefanout

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// Facts are what a site has made of a request by the time that it reaches a handler
// of the wrapping form. A client shares only if its facts are those of the stranger
// who has asked for the topic: then the handlers behind would treat it alike.
type facts []namedValue

// factsOf returns the facts of a request that has reached h.
func (h *Handler) factsOf(r *http.Request) facts {
	u := streamURL(r.URL, h.IgnoreQuery)
	var address keyBuilder
	address.addURL(&u)
	method := r.Method
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		method = orig.Method
	}
	f := facts{
		{"original method", method},
		{"method", r.Method},
		{"host", strings.ToLower(r.Host)},
		{"URI", string(address.b)},
	}
	around := h.surroundings()
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if (!survey.OwnVariable(name) || slices.Contains(around.Variables, name)) && !slices.Contains(h.settings.VaryPlaceholders, "http.vars."+name) {
			f = append(f, namedValue{"variable " + name, factValue(vars[name])})
		}
	}
	repl := replacerOf(r)
	for _, name := range around.Maps {
		if !slices.Contains(h.settings.VaryPlaceholders, name) {
			value, _ := repl.Get(name)
			f = append(f, namedValue{"placeholder {" + name + "}", factValue(value)})
		}
	}
	for _, name := range fileMatch {
		if value, ok := repl.Get(name); ok {
			f = append(f, namedValue{"placeholder {" + name + "}", factValue(value)})
		}
	}
	for _, name := range around.Headers {
		f = append(f, namedValue{"header " + name, fmt.Sprintf("%q", r.Header[name])})
	}
	return f
}

// fileMatch has what a file matcher in front leaves for those behind.
var fileMatch = []string{
	"http.matchers.file.relative", "http.matchers.file.absolute", "http.matchers.file.type", "http.matchers.file.remainder",
}

// differsFrom names a fact that the other request does not have, or "" if both have
// the same.
func (f facts) differsFrom(other facts) string {
	for i, fact := range f {
		if i >= len(other) || other[i] != fact {
			return fact.name
		}
	}
	if len(other) > len(f) {
		return other[len(f)].name
	}
	return ""
}

// factValue tells values apart. Those of pointers differ for each request, which
// then does not share.
func factValue(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return value
	}
	return fmt.Sprintf("%T %s", value, caddy.ToString(value))
}
