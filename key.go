package ssefanout

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// sharedVars are the variables set by earlier directives (root, fs) that the
// source of the endpoint form may need to find what it serves.
var sharedVars = []string{"root", "fs"}

// forwardedHeaders are how a trusted proxy tells what its client has asked for. A
// reverse_proxy passes them on from such a proxy and from no one else.
var forwardedHeaders = []string{"X-Forwarded-Proto", "X-Forwarded-Host"}

// addressedHeaders are how other proxies tell that. A reverse_proxy passes them on from
// anybody, and applications may believe them. In the endpoint form, they count if they come
// from a trusted proxy.
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

// A topicRequest is all that the origin may ever learn from a client's request:
// the upstream request is made from it alone, and so is the topic's key (R1).
type topicRequest struct {
	tls     bool
	trusted bool         // it came through a proxy that trusted_proxies names
	host    string       // lower case, with the port if the client named one
	url     url.URL      // wrapping form: before rewrites; facts have what these have made of it
	vars    []namedValue // endpoint form: of sharedVars, those that are set
	vary    []namedValue // placeholders
	header  http.Header  // headers that vary names, and learned, and forwardedHeaders of a trusted proxy

	learned []string // headers that have joined the key, sorted (see learnedvary.go)
	base    string   // the key without them, if there are any
}

type namedValue struct{ name, value string }

// An unknownPlaceholder is the place in VaryPlaceholders of one that a request did not have.
type unknownPlaceholder int

// newTopicRequest extracts from r what defines its topic.
func (h *Handler) newTopicRequest(r *http.Request) *topicRequest {
	req := &topicRequest{
		tls:    r.TLS != nil,
		host:   strings.ToLower(r.Host),
		url:    streamURL(r.URL, h.IgnoreQuery),
		header: make(http.Header),
	}
	if h.wraps() {
		if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
			req.url = streamURL(orig.URL, h.IgnoreQuery)
		}
	} else {
		vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
		for _, name := range sharedVars {
			if value, ok := vars[name]; ok {
				req.vars = append(req.vars, namedValue{name, caddy.ToString(value)})
			}
		}
	}
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	for i, name := range h.settings.VaryPlaceholders {
		if value, ok := repl.Get(name); ok {
			req.vary = append(req.vary, namedValue{name, caddy.ToString(value)})
		} else if h.notices.once(unknownPlaceholder(i), "") {
			h.logger.Warn("sharing a topic among requests for which a placeholder in vary is unknown",
				zap.String("placeholder", "{"+name+"}"),
				zap.String("hint", "check its spelling, and that what sets it stands in front of sse_fanout"))
		}
	}
	names := h.settings.VaryHeaders
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		req.trusted = true
		names = slices.Concat(names, forwardedHeaders)
	}
	if req.trusted || h.wraps() {
		names = slices.Concat(names, addressedHeaders)
	}
	for _, name := range names {
		values, ok := r.Header[name]
		if name == "Forwarded" && !slices.Contains(h.settings.VaryHeaders, name) {
			values = forwardedAs(values)
			ok = values != nil
		}
		if ok {
			req.header[name] = values
		}
	}
	return req
}

// applyValues sets what req has besides the request itself: the values of
// placeholders and variables, and whether a trusted proxy speaks for the client.
func (req *topicRequest) applyValues(r *http.Request) {
	ctx, repl := r.Context(), replacerOf(r)
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

// key names the topic within its pool. Each part is preceded by its length, so
// that no two different requests have one key, and what is absent differs from
// what is empty.
func (req *topicRequest) key() string {
	var k keyBuilder
	k.addFlag(req.tls)
	k.addFlag(req.trusted)
	k.add(req.host)
	k.addURL(&req.url)
	k.addValues(req.vars)
	k.addValues(req.vary)
	k.addHeader(req.header)
	k.count(len(req.learned)) // what is learned and absent differs from what is not learned
	for _, name := range req.learned {
		k.add(name)
	}
	return string(k.b)
}

type keyBuilder struct{ b []byte }

func (k *keyBuilder) count(n int) {
	k.b = binary.AppendUvarint(k.b, uint64(n))
}

func (k *keyBuilder) addFlag(set bool) {
	if set {
		k.count(1)
	} else {
		k.count(0)
	}
}

func (k *keyBuilder) add(part string) {
	k.count(len(part))
	k.b = append(k.b, part...)
}

func (k *keyBuilder) addURL(u *url.URL) {
	k.add(u.EscapedPath())
	k.add(u.RawQuery)
	k.addFlag(u.ForceQuery)
}

func (k *keyBuilder) addValues(values []namedValue) {
	k.count(len(values))
	for _, v := range values {
		k.add(v.name)
		k.add(v.value)
	}
}

func (k *keyBuilder) addHeader(header http.Header) {
	k.count(len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		k.add(name)
		k.count(len(header[name]))
		for _, value := range header[name] {
			k.add(value)
		}
	}
}

// nameKey makes public names of topics unlinkable to what their keys hold:
// without it, a value of vary could be guessed by hashing candidates.
var nameKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key)
	return key
}()

// maxNamedHost and maxNamedPath are how much of them a topic's name has: it stands in each
// line of the log that is about the topic.
const (
	maxNamedHost = 100
	maxNamedPath = 200
)

// publicName names a topic in logs and to administrators. It never holds a
// query or a value of vary.
func (req *topicRequest) publicName(key string) string {
	mac := hmac.New(sha256.New, nameKey)
	mac.Write([]byte(key))
	return clip(req.host, maxNamedHost) + clip(req.url.EscapedPath(), maxNamedPath) + " " + hex.EncodeToString(mac.Sum(nil)[:6])
}

// clip returns text, or its beginning and a sign that there is more.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "[...]"
}
