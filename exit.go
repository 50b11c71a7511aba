package ssefanout

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// exitGrace is how long a write to a client may make no progress once Caddy
// exits. Caddy waits for every response, and a client that does not read must
// not be what it waits for.
const exitGrace = 500 * time.Millisecond

// A deadline is that of a subscriber's writes. It is shortened when Caddy exits,
// also under a write that is waiting.
type deadline struct {
	control *http.ResponseController

	// standing deadlines pass without harm while nothing is written, as on
	// HTTP/1.1. So one serves many writes, which saves a sixth of what a delivery
	// costs. On HTTP/2, a deadline that passes resets the stream, even a quiet
	// one: there, each write has its own.
	standing bool

	mu sync.Mutex

	// Guarded by mu.
	by     time.Time // standing
	exitBy time.Time // set once Caddy exits
	over   bool      // the handler has returned, or is about to
}

// set is called before a write.
func (d *deadline) set(timeout time.Duration, exiting bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if exiting && d.exitBy.IsZero() {
		d.exitBy = time.Now().Add(exitGrace)
	}
	switch now := time.Now(); {
	case !d.exitBy.IsZero():
		_ = d.control.SetWriteDeadline(d.exitBy)
	case !d.standing:
		_ = d.control.SetWriteDeadline(now.Add(timeout))
	case d.by.Sub(now) < timeout:
		d.by = now.Add(timeout + timeout/8)
		_ = d.control.SetWriteDeadline(d.by)
	}
}

// clear is called after a write.
func (d *deadline) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exitBy.IsZero() && !d.standing {
		_ = d.control.SetWriteDeadline(time.Time{})
	}
}

// hurry is called by whoever sees that Caddy exits.
func (d *deadline) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || !d.exitBy.IsZero() {
		return
	}
	d.exitBy = time.Now().Add(exitGrace)
	_ = d.control.SetWriteDeadline(d.exitBy)
}

// end is called when the handler is about to return: the response writer is not
// to be used any more.
func (d *deadline) end() (exiting bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	return !d.exitBy.IsZero()
}

// connKey is where a request's context has its connection.
type connKey struct{}

// withConn is for the contexts of a server's connections.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, connKey{}, c)
}

// breakConn makes the connection of r fail that takes no more: resetting a
// stream of HTTP/2 is not enough for net/http to let go of it.
func breakConn(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		_ = c.SetWriteDeadline(time.Now())
	}
}

// closeConnIfLeft makes the answer the last of its connection when the server of
// h is being shut down. A connection of HTTP/2 that was only just made then is
// not told otherwise to end: Caddy would wait for it as long as its client likes,
// and its client would go on asking a configuration that is gone.
func (h *Handler) closeConnIfLeft(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 3 && (h.left.Load() || caddy.Exiting()) {
		w.Header().Set("Connection", "close")
	}
}
