package carrier

import (
	"context"
	"net"
	"net/http"
	"time"
)

// ExitGrace is how long a write to a client may make no progress once Caddy
// exits. Caddy waits for every response, and a client that does not read must
// not be what it waits for.
const ExitGrace = 500 * time.Millisecond

// connKey is where a request's context has its connection.
type connKey struct{}

// WithConn is for the contexts of a server's connections.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, connKey{}, c)
}

// breakConn makes the connection of r fail that takes no more: resetting a
// stream of HTTP/2 is not enough for net/http to let go of it.
func breakConn(r *http.Request) {
	if c := connOf(r); c != nil {
		_ = c.SetWriteDeadline(time.Now())
	}
}

// connOf returns the connection that r came over, as the server has it, or nil if
// that is not known.
func connOf(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}
