// Package request reads what matters here of a client's request: what defines its topic, what
// the site has made of it, with which id it resumes, and whose it is. It also makes the
// request that the origin gets instead.
package request

import (
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// A Shared is all that the origin may ever learn from a client's request:
// the upstream request is made from it alone, and so is the topic's key (R1).
type Shared struct {
	tls     bool
	trusted bool         // it came through a proxy that trusted_proxies names
	host    string       // lower case, with the port if the client named one
	url     url.URL      // wrapping form: before rewrites. Facts have the URL after them
	orig    *url.URL     // endpoint form: before rewrites, if that differs and the source may read it
	vars    []namedValue // endpoint form: of sharedVars, those that are set
	vary    []namedValue // placeholders
	header  http.Header  // headers that vary names, and Learned, forwardedHeaders of a trusted proxy, and fields.Countries

	// Learned are the headers that have joined the key, as the origin's answers vary by
	// them, sorted.
	Learned []string

	base string // the key without them, if there are any
}

// sharedVars are the variables set by earlier directives (root, fs) that the
// source of the endpoint form may need to find what it serves.
var sharedVars = []string{"root", "fs"}

// forwardedHeaders are how a trusted proxy tells what its client has asked for. A
// reverse_proxy passes them on from such a proxy and from no one else.
var forwardedHeaders = []string{"X-Forwarded-Proto", "X-Forwarded-Host"}

// addressedHeaders are how other proxies tell that. A reverse_proxy passes them on from any
// client, and applications may believe them. So they are in the key of the wrapping form,
// whoever sends them. In that of the endpoint form, they are if a trusted proxy does.
var addressedHeaders = []string{
	"Forwarded", "Front-End-Https", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Protocol", "X-Forwarded-Scheme",
	"X-Forwarded-Server", "X-Forwarded-Ssl", "X-Original-Host", "X-Scheme", "X-Url-Scheme",
}

// forwardedAs returns the elements of a Forwarded header without what differs for each
// client (RFC 7239, section 4): who it is, and by whom it came.
func forwardedAs(values []string) []string {
	var elements []string
	for element := range fields.Items(values) {
		var kept []string
		for pair := range strings.SplitSeq(element, ";") {
			name, _, _ := strings.Cut(textproto.TrimString(pair), "=")
			if strings.EqualFold(name, "host") || strings.EqualFold(name, "proto") {
				kept = append(kept, textproto.TrimString(pair))
			}
		}
		if len(kept) > 0 {
			elements = append(elements, strings.Join(kept, ";"))
		}
	}
	if len(elements) == 0 {
		return nil
	}
	return []string{strings.Join(elements, ", ")}
}

type namedValue struct{ name, value string }

// NewShared extracts from r what defines its topic.
func NewShared(r *http.Request, s *settings.Settings) *Shared {
	req := &Shared{
		tls:    r.TLS != nil,
		host:   strings.ToLower(r.Host),
		url:    streamURL(r.URL, s.IgnoreQuery),
		header: make(http.Header),
	}
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		switch asked := streamURL(orig.URL, s.IgnoreQuery); {
		case s.Wrapping:
			req.url = asked
		case s.ByOriginal && asked != req.url:
			req.orig = &asked
		}
	}
	if !s.Wrapping {
		vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
		for _, name := range sharedVars {
			if value, ok := vars[name]; ok {
				req.vars = append(req.vars, namedValue{name, caddy.ToString(value)})
			}
		}
	}
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	for _, name := range s.VaryPlaceholders {
		if value, ok := repl.Get(name); ok {
			req.vary = append(req.vary, namedValue{name, caddy.ToString(value)})
		}
	}
	names := s.VaryHeaders
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		req.trusted = true
		names = slices.Concat(names, forwardedHeaders)
	}
	if req.trusted || s.Wrapping {
		names = slices.Concat(names, addressedHeaders)
	}
	if s.Wrapping {
		// Sites that are for some countries decide by them, and say so by no Vary.
		names = slices.Concat(names, fields.Countries)
	}
	for _, name := range names {
		values, ok := r.Header[name]
		if name == "Forwarded" && !slices.Contains(s.VaryHeaders, name) {
			values = forwardedAs(values)
			ok = values != nil
		}
		if ok {
			req.header[name] = values
		}
	}
	return req
}

// HasPlaceholder reports whether the client's request had a placeholder that vary names.
func (req *Shared) HasPlaceholder(name string) bool {
	return slices.ContainsFunc(req.vary, func(v namedValue) bool { return v.name == name })
}

// Matches reports whether the headers of a request, among them those that vary names, are
// still those that the key was made from.
func (req *Shared) Matches(header http.Header, vary []string) bool {
	for _, name := range vary {
		if !slices.Equal(header[name], req.header[name]) {
			return false
		}
	}
	for name, values := range req.header {
		if !slices.Equal(header[name], values) {
			return false
		}
	}
	return true
}

// Apply sets what req has besides the request itself: the values of
// placeholders and variables, and whether a trusted proxy speaks for the client.
func (req *Shared) Apply(r *http.Request) {
	ctx, repl := r.Context(), ReplacerOf(r)
	caddyhttp.SetVar(ctx, caddyhttp.TrustedProxyVarKey, req.trusted)
	for _, v := range req.vars {
		caddyhttp.SetVar(ctx, v.name, v.value)
	}
	for _, v := range req.vary {
		repl.Set(v.name, v.value)
		if name, ok := strings.CutPrefix(v.name, "http.vars."); ok {
			caddyhttp.SetVar(ctx, name, v.value)
		}
	}
}

// MaxLearned is how many headers can join one key. An answer that varies by more is not
// worth sharing.
const MaxLearned = 8

// VaryingBy returns a request whose key has the values of more headers.
func (req *Shared) VaryingBy(names []string, header http.Header) *Shared {
	more := *req
	more.base = req.Base()
	more.header = maps.Clone(req.header)
	more.Learned = SortedNames(req.Learned, names)
	for _, name := range names {
		if values, ok := header[name]; ok {
			more.header[name] = values
		}
	}
	return &more
}

// Base is the key without what has been learned.
func (req *Shared) Base() string {
	if len(req.Learned) == 0 {
		return req.Key()
	}
	return req.base
}

// SortedNames returns the names in several lists, each once.
func SortedNames(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// ReplacerOf returns the placeholders of a request.
func ReplacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}
