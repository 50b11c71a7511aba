package request

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

// Agent is the User-Agent of the stranger.
const Agent = "caddy-sse-fanout"

// Stranger makes the request with which the stranger asks: a function of the topic's key
// (R1), from an address with a port, over a connection to another.
func (req *Shared) Stranger(ctx context.Context, from string, local net.Addr) *http.Request {
	asked := req.url
	r := &http.Request{
		Method:     http.MethodGet,
		URL:        &asked,
		RequestURI: asked.RequestURI(),
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header: http.Header{
			"Accept":          {"text/event-stream"},
			"Accept-Encoding": {"identity"},
			"Cache-Control":   {"no-cache"},
			"User-Agent":      {Agent},
		},
		Body:       http.NoBody,
		Host:       req.host,
		RemoteAddr: from,
	}
	if req.tls {
		name, _, err := net.SplitHostPort(req.host)
		if err != nil {
			name = req.host
		}
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: name}
	}
	for name, values := range req.header {
		r.Header[name] = append([]string(nil), values...)
	}
	// Caddy's placeholders of the local address panic without one.
	return r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, local))
}
