package ssefanout

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An inner request asks the site for one stream of a connection. It must not see more than
// the request would that the client could send itself: it enters the site at its front door
// with the client's method, host, address, TLS state and header, and with nothing that the
// site has found out or added since.

// loopToken is in the header CDN-Loop (RFC 8586) of inner requests. A proxy that leads one to
// this server again, over the network, is found out by it.
const loopToken = "caddy-sse-multiplex" //nolint:gosec // a token of HTTP, and no secret

// isInner reports whether r is an inner request, or comes of one.
func isInner(r *http.Request) bool {
	if multiplex.Of(r) != nil {
		return true
	}
	for item := range fields.Items(r.Header["Cdn-Loop"]) {
		if name, _, _ := strings.Cut(item, ";"); strings.TrimSpace(name) == loopToken {
			return true
		}
	}
	return false
}

// innerRequests makes the inner requests of one connection.
type innerRequests struct {
	outer  *http.Request
	remote string
	header http.Header
	base   context.Context // values of the connection; nothing of the client's request
}

// errHostChanged is a configuration in which nobody can tell what the client has asked for.
var errHostChanged = errors.New("serving sse_multiplex: a handler in front of it changes the Host of requests: " +
	"put it in a handle block in front of that")

// ownFields are those that an inner request has of its own, or that are about the connection
// (RFC 9110, section 7.6.1), or about what was asked for.
var ownFields = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Cache-Control": true, "Pragma": true, "Last-Event-Id": true,

	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Http2-Settings": true,

	"Content-Length": true, "Content-Type": true, "Content-Encoding": true, "Expect": true, "Range": true,
	"If-Match": true, "If-None-Match": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "If-Range": true,
}

// newInnerRequests prepares the inner requests for a client's request.
func (h *Multiplex) newInnerRequests(r *http.Request) (*innerRequests, error) {
	before := h.before()
	if before.Changed("Host") {
		return nil, errHostChanged
	}
	if before.Unknown != "" && h.notices.Once(pass.Header, before.Unknown) {
		h.logger.Warn("asking for streams with cookies, Authorization and harmless headers of the client alone, "+
			"as a handler in front may have added others",
			zap.String("handler", before.Unknown),
			zap.String("hint", "put sse_multiplex in a handle block in front of it: each stream passes it anyway"))
	}
	in := &innerRequests{outer: r, remote: r.RemoteAddr, header: make(http.Header, len(r.Header)+5)}
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		in.remote = orig.RemoteAddr
	}
	for name, values := range r.Header {
		canonical := fields.Canonical(name)
		known := before.Unknown == "" || fields.Harmless(canonical) || canonical == "Cookie" || canonical == "Authorization"
		if known && !ownFields[canonical] && !before.Changed(canonical) {
			in.header[canonical] = values
		}
	}
	// A field that is named here is seen by the site, and by no origin: its judgement must
	// not depend on that.
	for name := range fields.Items(r.Header["Connection"]) {
		if _, has := in.header[fields.Canonical(name)]; has {
			in.header["Connection"] = append(in.header["Connection"], name)
		}
	}
	in.header["Accept"] = []string{"text/event-stream"}
	in.header["Accept-Encoding"] = []string{"identity"}
	in.header["Cache-Control"] = []string{"no-cache"}
	in.header["Cdn-Loop"] = append(in.header["Cdn-Loop"], loopToken)
	in.base = context.Background()
	for _, key := range []any{http.ServerContextKey, http.LocalAddrContextKey} {
		in.base = context.WithValue(in.base, key, r.Context().Value(key))
	}
	return in, nil
}

// request makes the inner request for a stream.
func (in *innerRequests) request(a *multiplex.Asking) *http.Request {
	target, err := url.ParseRequestURI(a.Target)
	if err != nil {
		target = new(url.URL) // it was parsed before
	}
	r := &http.Request{
		Method:     http.MethodGet,
		URL:        target,
		RequestURI: a.Target,
		Proto:      in.outer.Proto,
		ProtoMajor: in.outer.ProtoMajor,
		ProtoMinor: in.outer.ProtoMinor,
		Header:     in.header.Clone(),
		Body:       http.NoBody,
		Host:       in.outer.Host,
		RemoteAddr: in.remote,
		TLS:        in.outer.TLS,
	}
	if id, err := a.Mark.ID(); err == nil && relay.SendableID(id) {
		r.Header["Last-Event-Id"] = []string{id}
	}
	return r.WithContext(a.Context())
}

// multiplexedAs returns the Asking that r is if the connection can read the topic itself: no
// writer in between may alter what the client gets.
func multiplexedAs(w http.ResponseWriter, r *http.Request) *multiplex.Asking {
	if a := multiplex.Of(r); a != nil && a.IsPlain(w) {
		return a
	}
	return nil
}

// unusableID is a claim that nobody knows, and that is never sent: whoever brings it is told
// of a gap.
const unusableID = "\x00"

// multiplexedClaim returns what the client of an inner request wants to resume with, in the
// topic for key.
func (p *pool) multiplexedClaim(a *multiplex.Asking, key string, claim relay.Claim) relay.Claim {
	switch {
	case a.Lost:
		return relay.Claim{ID: unusableID}
	case a.Mark == "":
		return claim // the path of a stream may have one
	case a.Mark.IsDigest():
		id, found := p.relay.Resolve(key, a.Mark.StandsFor)
		if !found {
			return relay.Claim{ID: unusableID}
		}
		return relay.Claim{ID: id}
	}
	id, _ := a.Mark.ID() // it was parsed before
	return relay.Claim{ID: relay.TrimBlanks(id)}
}

// A pageOrigin is where a page is from that reads a connection, as far as its browser tells.
type pageOrigin struct {
	origin  string
	foreign bool // it is not of this site
	known   bool // its request carries what tells who the user is
}

func originOf(r *http.Request) pageOrigin {
	from := pageOrigin{origin: r.Header.Get("Origin")}
	if from.origin == "" {
		return from
	}
	u, err := url.Parse(from.origin)
	from.foreign = err != nil || !strings.EqualFold(u.Host, r.Host)
	from.known = len(r.Header["Cookie"]) > 0 || len(r.Header["Authorization"]) > 0 ||
		r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	return from
}

// admitted reports whether the page may read an answer with this header (Fetch standard,
// "CORS check").
func (from pageOrigin) admitted(header http.Header) bool {
	if !from.foreign {
		return true
	}
	switch allowed := header["Access-Control-Allow-Origin"]; {
	case len(allowed) != 1:
		return false
	case allowed[0] == "*":
		return !from.known
	case allowed[0] != from.origin:
		return false
	}
	return !from.known || header.Get("Access-Control-Allow-Credentials") == "true"
}
