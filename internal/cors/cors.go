// Package cors answers for the origin which pages may read its streams.
package cors

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
)

// A Policy answers for the origin which pages may read the streams (Fetch
// standard, "CORS protocol"). The zero value has no opinion.
type Policy struct {
	// Headers are those that a page may send besides preflightHeaders.
	Headers []string

	any     bool
	origins map[string]bool // serialized: scheme://host[:port]
}

// New returns a policy that allows the pages of some origins, or for "*" of all. Its errors
// name the option cors_origins.
func New(origins []string) (Policy, error) {
	var c Policy
	for _, origin := range origins {
		if origin == "*" {
			c.any = true
			continue
		}
		if strings.Contains(origin, "*") {
			return c, fmt.Errorf("checking cors_origins: %q matches no origin: list each one, or allow all with * alone", origin)
		}
		serialized, ok := fields.SerializeOrigin(origin)
		if !ok {
			return c, fmt.Errorf("checking cors_origins: %q is neither an origin such as https://example.com nor *", origin)
		}
		if c.origins == nil {
			c.origins = make(map[string]bool)
		}
		c.origins[serialized] = true
	}
	return c, nil
}

// Enabled reports whether the policy has an opinion.
func (c *Policy) Enabled() bool {
	return c.any || len(c.origins) > 0
}

// Apply takes over the headers of the origin's answer that speak of CORS.
func (c *Policy) Apply(header http.Header, r *http.Request) {
	if !c.Enabled() {
		return
	}
	for name := range header {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(header, name)
		}
	}
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case origin != "" && c.origins[strings.ToLower(origin)]:
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
	case c.any:
		header.Set("Access-Control-Allow-Origin", "*")
	}
}

// preflightHeaders are what a page that reads an event stream may want to send
// beyond what needs no preflight.
var preflightHeaders = []string{"Last-Event-Id", "Cache-Control", "Accept"}

func (c *Policy) allowedHeaders() []string { return slices.Concat(preflightHeaders, c.Headers) }

// AnswersPreflight reports whether r asks for no more than to read an event
// stream from an allowed origin. Every other preflight is the origin's business.
func (c *Policy) AnswersPreflight(r *http.Request) bool {
	if !c.Enabled() || r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") != http.MethodGet {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" || !c.any && !c.origins[strings.ToLower(origin)] {
		return false
	}
	for name := range fields.Items(r.Header["Access-Control-Request-Headers"]) {
		if !slices.Contains(c.allowedHeaders(), fields.Canonical(name)) {
			return false
		}
	}
	return true
}

// ServePreflight answers a preflight for which AnswersPreflight is true.
func (c *Policy) ServePreflight(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	c.Apply(header, r)
	header.Set("Access-Control-Allow-Methods", http.MethodGet)
	header.Set("Access-Control-Allow-Headers", strings.Join(c.allowedHeaders(), ", "))
	header.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
	return nil
}
