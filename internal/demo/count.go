package demo

import (
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Count counts the clients of the handlers behind it, for the page.
//
// It counts requests whose handler has not returned. That is right only while
// a handler stays with its client for as long as the stream runs. Once streams
// are delivered directly, over a connection taken from the HTTP server, the
// handler returns early and this count is too low: then the numbers of the
// module itself must take its place. count.get is the only thing to change.
type Count struct {
	count *count
}

// CaddyModule returns the Caddy module information.
func (*Count) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_demo_count",
		New: func() caddy.Module { return new(Count) },
	}
}

// Provision sets up h.
func (h *Count) Provision(caddy.Context) error {
	if h.count == nil {
		h.count = theCount
	}
	return nil
}

func (h *Count) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.count.n.Add(1)
	// Deferred, for a broken stream ends in a panic.
	defer h.count.n.Add(-1)
	return next.ServeHTTP(w, r)
}

// count is the number of clients connected now.
type count struct {
	n atomic.Int64
}

func (c *count) get() int { return int(c.n.Load()) }

// Interface guards
var (
	_ caddy.Provisioner           = (*Count)(nil)
	_ caddyhttp.MiddlewareHandler = (*Count)(nil)
)
