package pass

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// Why says why r must go through one to one, or is empty if r can be
// shared. In the wrapping form, around tells what stands around the handler.
//
// What means nothing to an event stream is ignored, as a server may do: a Range
// (RFC 9110, section 14.2), an Upgrade to anything but a WebSocket (section 7.8), and
// in the endpoint form, where every GET is for a stream, content (section 9.3.1). In
// the wrapping form, all that names a WebSocket passes: sites have matchers for it.
func Why(r *http.Request, s *settings.Settings, around func() *survey.Surroundings) Reason {
	switch {
	case r.Method != http.MethodGet:
		return Method
	case asksForWebSocket(r), s.Wrapping && fields.HasToken(r.Header["Upgrade"], "websocket"):
		return Upgrade
	case r.Context().Value(caddyhttp.ErrorCtxKey) != nil:
		return ErrorRoute
	case multiplex.IsInner(r) && r.Header.Get("User-Agent") == request.Agent:
		// The topic might be the one that reads the connection, and be fed by itself.
		return Loop
	case s.Wrapping && !fields.PrefersEventStream(r.Header):
		return Accept
	case s.Wrapping && hasBody(r):
		return Body
	case s.Wrapping && around().Never != "":
		return Behind
	case s.Strip:
		return ""
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !variesByCertificate(s) {
		return Certificate
	}
	if IdentifyingHeader(r, s, around) != "" {
		return Header
	}
	return ""
}

// asksForWebSocket reports whether r is what reverse_proxy would hand its connection
// over for. Only HTTP/1.1 has such requests: those of later versions are no GETs.
func asksForWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		fields.HasToken(r.Header["Connection"], "upgrade") && fields.HasToken(r.Header["Upgrade"], "websocket")
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

// IdentifyingHeader returns a header of r that may identify the client and that
// vary does not name, or "" if there is none. One that the site sets itself is
// compared with the stranger's (see request.Facts).
func IdentifyingHeader(r *http.Request, s *settings.Settings, around func() *survey.Surroundings) string {
	for name := range r.Header {
		if !fields.Harmless(name) && !slices.Contains(s.VaryHeaders, name) && (!s.Wrapping || !setsHeader(around(), name)) {
			return name
		}
	}
	return ""
}

// setsHeader reports whether a handler of the site changes a request header.
func setsHeader(around *survey.Surroundings, name string) bool {
	_, found := slices.BinarySearch(around.Headers, name)
	return found
}

func variesByCertificate(s *settings.Settings) bool {
	return slices.ContainsFunc(s.VaryPlaceholders, func(placeholder string) bool {
		return strings.HasPrefix(placeholder, "http.request.tls.client.")
	})
}
