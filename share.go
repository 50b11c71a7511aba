package ssefanout

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
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
	case asksForWebSocket(r), h.settings.Wrapping && fields.HasToken(r.Header["Upgrade"], "websocket"):
		return passUpgrade
	case r.Context().Value(caddyhttp.ErrorCtxKey) != nil:
		return passError
	case h.settings.Wrapping && !fields.PrefersEventStream(r.Header):
		return passAccept
	case h.settings.Wrapping && hasBody(r):
		return passBody
	case h.settings.Wrapping && h.surroundings().Never != "":
		return passBehind
	case h.settings.Strip:
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
		fields.HasToken(r.Header["Connection"], "upgrade") && fields.HasToken(r.Header["Upgrade"], "websocket")
}

// closeIfUnread makes the answer to r the last of its connection if its body may be
// unread. Otherwise net/http would read the body before it writes the header, and wait
// for a client that does not send all of it.
func closeIfUnread(w http.ResponseWriter, r *http.Request) {
	if carrier.MayBeUnread(r) {
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
		if !fields.Harmless(name) && !slices.Contains(h.settings.VaryHeaders, name) && (!h.settings.Wrapping || !h.setsHeader(name)) {
			return name
		}
	}
	return ""
}

// setsHeader reports whether a handler of the site changes a request header.
func (h *Handler) setsHeader(name string) bool {
	_, found := slices.BinarySearch(h.surroundings().Headers, name)
	return found
}

func (h *Handler) variesByCertificate() bool {
	return slices.ContainsFunc(h.settings.VaryPlaceholders, func(placeholder string) bool {
		return strings.HasPrefix(placeholder, "http.request.tls.client.")
	})
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
	if !p.notices.once(why, header) {
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
	if p.notices.once(passDiffers, fact) {
		p.log().Info("not sharing a request that the site has changed otherwise than that of a stranger",
			zap.String("topic", t.Name()),
			zap.String("fact", fact),
			zap.String("hint", "name it in vary if the stream depends on it, or change it behind sse_fanout if it does not"))
	}
}

// explainNothingBehind says once that a handler of the wrapping form is the last one of
// its route.
func (p *pool) explainNothingBehind(t *relay.Topic) {
	if p.notices.once(passNotStream, "") {
		p.log().Warn("nothing to share, as nothing behind sse_fanout has answered",
			zap.String("topic", t.Name()),
			zap.String("hint", "name upstreams in sse_fanout, or put it in front of the handler that answers, such as reverse_proxy, in the same block"))
	}
}

// explainRefusal says once how an operator can have the origin judge by what a
// client has brought, if it may have refused the shared request for want of it.
func (p *pool) explainRefusal(t *relay.Topic, no *relay.Outcome, r *http.Request) {
	switch {
	case p.opts.Wrapping, no.Status != http.StatusUnauthorized && no.Status != http.StatusForbidden:
		return
	case len(p.opts.VaryPlaceholders) > 0:
		return // the origin may get credentials by a placeholder
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if len(r.Header[name]) == 0 || slices.Contains(p.opts.VaryHeaders, name) {
			continue
		}
		if p.notices.once(passRefused, "") {
			p.log().Warn("the origin has refused a shared request, which is without the credentials of its client",
				zap.String("topic", t.Name()),
				zap.Int("status", no.Status),
				zap.String("header", name),
				zap.String("hint", "name it in vary if the stream depends on it, or set 'credentials pass' to have such requests go through one to one"))
		}
		return
	}
}
