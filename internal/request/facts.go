package request

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// Facts are what a site has made of a request by the time that it reaches a handler
// of the wrapping form. A client shares only if its facts are those of the stranger
// who has asked for the topic: then the handlers behind would treat it alike.
type Facts []namedValue

// NewFacts returns the facts of a request that has reached a handler with these settings
// and surroundings.
func NewFacts(r *http.Request, s *settings.Settings, around *survey.Surroundings) Facts {
	u := streamURL(r.URL, s.IgnoreQuery)
	var address keyBuilder
	address.addURL(&u)
	method := r.Method
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		method = orig.Method
	}
	f := Facts{
		{"original method", method},
		{"method", r.Method},
		{"host", strings.ToLower(r.Host)},
		{"URI", string(address.b)},
	}
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if (!survey.OwnVariable(name) || slices.Contains(around.Variables, name)) && !slices.Contains(s.VaryPlaceholders, "http.vars."+name) {
			f = append(f, namedValue{"variable " + name, factValue(vars[name])})
		}
	}
	repl := ReplacerOf(r)
	for _, name := range around.Maps {
		if !slices.Contains(s.VaryPlaceholders, name) {
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

// Key tells facts apart from others.
func (f Facts) Key() string {
	var k keyBuilder
	k.addValues(f)
	return string(k.b)
}

// DiffersFrom names a fact that the other request does not have, or "" if both have
// the same.
func (f Facts) DiffersFrom(other Facts) string {
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
