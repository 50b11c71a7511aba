package request

import (
	"net/url"
	"slices"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// streamURL returns what of u names a stream: path and query, without a last
// event id, and without what is ignored.
func streamURL(u *url.URL, ignored []string) url.URL {
	return url.URL{
		Path:       u.Path,
		RawPath:    u.RawPath,
		RawQuery:   streamQuery(u.RawQuery, ignored),
		ForceQuery: u.ForceQuery,
	}
}

// streamQuery removes the parameters of relay.IDParams and those that are ignored from a
// query and leaves the rest as it is, to the byte.
func streamQuery(query string, ignored []string) string {
	found := false
	kept := make([]string, 0, 8)
	for param := range strings.SplitSeq(query, "&") {
		if name, _ := splitParam(param); relay.IDParams[name] || slices.Contains(ignored, name) {
			found = true
		} else {
			kept = append(kept, param)
		}
	}
	if !found {
		return query
	}
	return strings.Join(kept, "&")
}

// lastEventIDParam returns the unescaped name and the value of a query parameter that
// holds a last event id; ok is false for any other.
func lastEventIDParam(param string) (name, value string, ok bool) {
	name, value = splitParam(param)
	return name, value, relay.IDParams[name]
}

// splitParam returns the unescaped name and the value of a query parameter.
func splitParam(param string) (name, value string) {
	name, value, _ = strings.Cut(param, "=")
	if unescaped, err := url.QueryUnescape(name); err == nil {
		name = unescaped
	}
	return name, value
}
