package ssefanout

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A passReason says why a request is not shared but goes through one to one.
// It is a metric label. As an error, it is what serving a subscriber returns
// when nothing was written yet and the client's own request must pass.
type passReason string

func (why passReason) Error() string {
	return "passing the request one to one: " + string(why)
}

const (
	passMethod      passReason = "method"       // not a GET
	passBody        passReason = "body"         // wrapping form: carries a body
	passUpgrade     passReason = "upgrade"      // asks for a WebSocket
	passError       passReason = "error_route"  // inside handle_errors
	passAccept      passReason = "accept"       // wrapping form: does not ask for an event stream before all else
	passCertificate passReason = "client_cert"  // carries a client certificate
	passHeader      passReason = "header"       // carries a header that may identify the client
	passNotStream   passReason = "not_a_stream" // the origin answered something else
	passRefused     passReason = "refused"      // wrapping form: the origin said no to the shared request
	passFront       passReason = "front"        // wrapping form: the site does not lead strangers to the handler
	passDiffers     passReason = "differs"      // wrapping form: the site has made something else of this request
	passBehind      passReason = "behind"       // wrapping form: what stands behind can tell one client from another
	passSetCookie   passReason = "set_cookie"   // the origin's answer sets a cookie
	passVary        passReason = "vary"         // the origin's answer varies with each client
	passSession     passReason = "session"      // the origin's stream begins with a session of its own
)

// whyPass says why r must go through one to one, or is empty if r can be
// shared.
//
// What means nothing to an event stream is ignored, as a server may do: a Range
// (RFC 9110, section 14.2), an Upgrade to anything but a WebSocket (section 7.8), and
// in the endpoint form, where every GET is for a stream, content (section 9.3.1). In
// the wrapping form, all that names a WebSocket passes: sites have matchers for it.
func (h *Handler) whyPass(r *http.Request) passReason {
	switch {
	case r.Method != http.MethodGet:
		return passMethod
	case asksForWebSocket(r), h.wrapping && hasToken(r.Header["Upgrade"], "websocket"):
		return passUpgrade
	case r.Context().Value(caddyhttp.ErrorCtxKey) != nil:
		return passError
	case h.wrapping && !prefersEventStream(r.Header):
		return passAccept
	case h.wrapping && hasBody(r):
		return passBody
	case h.wrapping && h.surroundings().never != "":
		return passBehind
	case h.strip:
		return ""
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !h.variesByCertificate() {
		return passCertificate
	}
	if h.identifyingHeader(r) != "" {
		return passHeader
	}
	return ""
}

// asksForWebSocket reports whether r is what reverse_proxy would hand its connection
// over for. Only HTTP/1.1 has such requests: those of later versions are no GETs.
func asksForWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken reports whether one of the lists in values has a token, in any case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(textproto.TrimString(item), token) {
				return true
			}
		}
	}
	return false
}

// mayBeUnread reports whether the connection of r may still have bytes of its body.
// Later versions than HTTP/1 keep them apart from the connection.
func mayBeUnread(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ContentLength != 0
}

// closeIfUnread makes the answer to r the last of its connection if its body may be
// unread. Otherwise net/http would read the body before it writes the header, and wait
// for a client that does not send all of it.
func closeIfUnread(w http.ResponseWriter, r *http.Request) {
	if mayBeUnread(r) {
		w.Header().Set("Connection", "close")
	}
}

// hasBody reports whether r carries a body. HTTP/3 does not tell for a request
// without a Content-Length, as every GET of a browser is: there, only its first
// byte, or its end, does.
func hasBody(r *http.Request) bool {
	if r.ContentLength >= 0 || r.ProtoMajor < 3 {
		return r.ContentLength != 0 || len(r.TransferEncoding) > 0
	}
	first := make([]byte, 1)
	if n, _ := io.ReadFull(r.Body, first); n == 0 {
		return false
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first), r.Body), r.Body}
	return true
}

// identifyingHeader returns a header of r that may identify the client and that
// vary does not name, or "" if there is none. One that the site sets itself is
// compared with the stranger's (see facts).
func (h *Handler) identifyingHeader(r *http.Request) string {
	for name := range r.Header {
		if !harmless(name) && !slices.Contains(h.varyHeaders, name) && (!h.wrapping || !h.setsHeader(name)) {
			return name
		}
	}
	return ""
}

// setsHeader reports whether a handler of the site changes a request header.
func (h *Handler) setsHeader(name string) bool {
	_, found := slices.BinarySearch(h.surroundings().headers, name)
	return found
}

func (h *Handler) variesByCertificate() bool {
	return slices.ContainsFunc(h.varyReplacer, func(placeholder string) bool {
		return strings.HasPrefix(placeholder, "http.request.tls.client.")
	})
}

// hints are what the log has to say of what could be configured, each once.
type hints struct {
	given   sync.Map     // of hint
	headers atomic.Int64 // hints that name one
}

// A hint is of a reason, and of a header if the reason is one.
type hint struct {
	why    passReason
	header string
}

// hintPrivate is the reason of a hint about streams that are private by their header, and shared.
const hintPrivate = "private"

// The names of headers are the clients' choice: they must not fill the log, nor
// memory.
const (
	maxHeaderHints = 20
	maxHintedName  = 100
)

// due reports whether a hint was not given yet, and is to be given now.
func (g *hints) due(why passReason, header string) bool {
	if len(header) > maxHintedName || header != "" && g.headers.Load() >= maxHeaderHints {
		return false
	}
	if _, given := g.given.LoadOrStore(hint{why, header}, true); given {
		return false
	}
	if header != "" {
		g.headers.Add(1)
	}
	return true
}

// explainPass says how an operator can have such requests shared after all.
func (h *Handler) explainPass(p *pool, why passReason, r *http.Request) {
	var header string
	switch why {
	case passHeader:
		header = h.identifyingHeader(r) // of several, another with each request
	case passCertificate:
	default:
		return
	}
	if !p.hints.due(why, header) {
		return
	}
	if c := h.logger.Check(zapcore.InfoLevel, "not sharing a request that may identify its client"); c != nil {
		fields := []zap.Field{
			zap.String("reason", string(why)),
			zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials strip' if the stream is public"),
		}
		if header != "" {
			fields = append(fields, zap.String("header", header))
		}
		c.Write(fields...)
	}
}

// explainDiffers says once for each fact that the site has made something else of a
// client's request than of the stranger's.
func (p *pool) explainDiffers(t *relay.Topic, fact string) {
	if p.hints.due(passDiffers, fact) {
		p.log().Info("not sharing a request that the site has changed otherwise than that of a stranger",
			zap.String("topic", t.Name()),
			zap.String("fact", fact),
			zap.String("hint", "name it in vary if the stream depends on it, or change it behind sse_fanout if it does not"))
	}
}

// explainNothingBehind says once that a handler of the wrapping form is the last one of
// its route.
func (p *pool) explainNothingBehind(t *relay.Topic) {
	if p.hints.due(passNotStream, "") {
		p.log().Warn("nothing to share, as nothing behind sse_fanout has answered",
			zap.String("topic", t.Name()),
			zap.String("hint", "name upstreams in sse_fanout, or put it in front of the handler that answers, such as reverse_proxy, in the same block"))
	}
}

// explainRefusal says once how an operator can have the origin judge by what a
// client has brought, if it may have refused the shared request for want of it.
func (p *pool) explainRefusal(t *relay.Topic, no *relay.Outcome, r *http.Request) {
	switch {
	case p.opts.wrapping, no.Status != http.StatusUnauthorized && no.Status != http.StatusForbidden:
		return
	case len(p.opts.varyReplacer) > 0:
		return // the origin may get credentials by a placeholder
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if len(r.Header[name]) == 0 || slices.Contains(p.opts.varyHeaders, name) {
			continue
		}
		if p.hints.due(passRefused, "") {
			p.log().Warn("the origin has refused a shared request, which is without the credentials of its client",
				zap.String("topic", t.Name()),
				zap.Int("status", no.Status),
				zap.String("header", name),
				zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials pass' to have such requests go through one to one"))
		}
		return
	}
}

// prefersEventStream reports whether the Accept header gives text/event-stream a greater
// weight than anything else. The shared request asks for nothing else: a server that
// would choose another type for this client must be asked by the client itself. A wildcard
// is not enough: every page load carries one.
func prefersEventStream(header http.Header) bool {
	eventStream, others := accepted(header)
	return eventStream > others
}

// wantsOnlyEventStream reports whether the Accept header admits text/event-stream and
// nothing else. Where it admits more, the answer may be anything: clients of MCP accept
// a stream or JSON with each POST.
func wantsOnlyEventStream(header http.Header) bool {
	eventStream, others := accepted(header)
	return eventStream > 0 && others == 0
}

// accepted returns the weights that the Accept header gives text/event-stream, and the
// greatest that it gives anything else.
func accepted(header http.Header) (eventStream, others float64) {
	for _, value := range header["Accept"] {
		for item := range strings.SplitSeq(value, ",") {
			mediaType, params, _ := strings.Cut(item, ";")
			switch mediaType = textproto.TrimString(mediaType); {
			case strings.EqualFold(mediaType, "text/event-stream"):
				eventStream = max(eventStream, weight(params))
			case mediaType != "":
				others = max(others, weight(params))
			}
		}
	}
	return eventStream, others
}

// weight returns the weight in the parameters of a media range (RFC 9110, section
// 12.4.2). What is no number has none.
func weight(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(textproto.TrimString(param), "="); strings.EqualFold(name, "q") {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 1
}

// harmless reports whether a request header, in canonical form, says nothing
// about who the client is that an origin would judge by. The lists name what
// browsers, caches, balancers, networks of caches and tracers add. What an
// authenticating proxy adds must not be in them, which rules out the whole
// families of X-Forwarded-* (X-Forwarded-User, X-Forwarded-Client-Cert) and
// CF-* (CF-Access-Jwt-Assertion).
func harmless(name string) bool {
	if harmlessHeaders[name] {
		return true
	}
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return slices.ContainsFunc(harmlessPrefixes, begins) && !slices.ContainsFunc(harmfulPrefixes, begins)
}

// harmfulPrefixes are of what Cloudflare and CloudFront add for a client that has
// logged in or shown a certificate.
var harmfulPrefixes = []string{
	"Cf-Access-",
	"Cf-Cert-",
	"Cf-Client-Cert-",
	"Cloudfront-Viewer-Cert-",
}

var harmlessPrefixes = []string{
	"Accept-",
	"Cf-",
	"Cloudfront-",
	"If-",
	"Sec-Ch-",
	"Sec-Fetch-",
	"X-B3-",
	"X-Datadog-",
}

var harmlessHeaders = headerSet(`
	Accept Cache Cache-Control Content-Length DNT Early-Data Forwarded Host
	Last-Event-ID Origin Pragma Priority Referer Save-Data Sec-GPC Sec-Purpose
	Purpose Upgrade-Insecure-Requests User-Agent Via

	Device-Memory Downlink DPR ECT RTT Viewport-Width Width

	Connection HTTP2-Settings Keep-Alive Proxy-Connection Range TE Trailer
	Transfer-Encoding Upgrade

	X-Forwarded X-Forwarded-By X-Forwarded-For X-Forwarded-Host
	X-Forwarded-Path X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto
	X-Forwarded-Protocol X-Forwarded-Scheme X-Forwarded-Server X-Forwarded-Ssl
	X-Forwarded-Uri X-Original-Host X-Scheme X-Url-Scheme Front-End-Https

	CDN-Loop Client-IP True-Client-IP X-Client-IP X-Cluster-Client-IP
	X-Envoy-External-Address X-Envoy-Expected-Rq-Timeout-Ms X-Real-IP
	X-Original-Forwarded-For X-Varnish X-Timer
	Fastly-Client-IP Fastly-FF Fastly-SSL Fastly-Orig-Accept-Encoding
	Fly-Client-IP Fly-Forwarded-Port Fly-Forwarded-Proto Fly-Forwarded-Ssl
	Fly-Region Fly-Request-Id
	X-Amz-Cf-Id X-Azure-ClientIP X-Azure-FDID X-Azure-Ref X-Azure-RequestChain
	X-Azure-SocketIP X-FD-HealthProbe X-Akamai-Edgescape X-Appengine-City
	X-Appengine-Country X-Appengine-Region X-Vercel-Forwarded-For
	X-Vercel-IP-Country X-Nf-Client-Connection-IP

	B3 Baggage Traceparent Tracestate X-Amzn-Trace-Id X-Cloud-Trace-Context
	X-Correlation-ID X-Ot-Span-Context X-Request-ID X-Request-Start Uber-Trace-Id
`)

func headerSet(names string) map[string]bool {
	set := make(map[string]bool)
	for name := range strings.FieldsSeq(names) {
		set[canonicalHeader(name)] = true
	}
	return set
}

func canonicalHeader(name string) string {
	return textproto.CanonicalMIMEHeaderKey(name)
}
