package survey

import (
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// ownVariables are those that Caddy sets itself: they tell of the request's client,
// its log, or its own course.
var ownVariables = map[string]bool{
	caddyhttp.ClientIPVarKey:         true,
	caddyhttp.TrustedProxyVarKey:     true,
	caddyhttp.LogSkipVar:             true,
	caddyhttp.AccessLoggerNameVarKey: true,
	"matchers.error":                 true,
	"start_time":                     true,
	"uuid":                           true,
	"trace_id":                       true,
	"span_id":                        true,
	"unhandled":                      true,
}

// OwnVariable reports whether a variable is one that Caddy sets itself.
func OwnVariable(name string) bool {
	return ownVariables[name] || strings.HasPrefix(name, "reverse_proxy.") || strings.HasPrefix(name, "http.handlers.push.")
}
