package ssefanout

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct/directtest"
)

// bothWriters runs a test in a synctest bubble twice: with clients that are served
// over http.ResponseController, and with such whose connections are handed over to
// direct delivery.
func bothWriters(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("http", func(t *testing.T) { synctest.Test(t, test) })
	t.Run("direct", func(t *testing.T) {
		overSockets = new(memorySockets)
		defer func() { overSockets = nil }()
		synctest.Test(t, test)
	})
}

// overSockets is what setups of the test that runs now have their clients' sockets
// from; nil if they have none.
var overSockets carrier.Sockets

// clientKey is where the context of a request has the client.
type clientKey struct{}

// memorySockets are sockets of clients in memory.
type memorySockets struct{ all directtest.Sockets }

func (m *memorySockets) Beneath(_ http.ResponseWriter, r *http.Request) bool {
	_, ok := r.Context().Value(clientKey{}).(*client)
	return ok
}

func (m *memorySockets) Duplicate(r *http.Request) (int, error) {
	c := r.Context().Value(clientKey{}).(*client)
	k := m.all.New(c.receive)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket = k
	return int(k.FD), nil
}

func (m *memorySockets) Detach(http.ResponseWriter) error { return nil }

func (m *memorySockets) Held(*http.Request) (bytes int, full, known bool) { return 0, false, false }

func (m *memorySockets) Network() (direct.Network, error) { return m.all.Open() }

func (c *client) direct() *directtest.Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.socket
}

// outlive waits for a connection that was handed over.
func (c *client) outlive() {
	k := c.direct()
	if k == nil {
		return
	}
	<-k.Closed
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.whole && c.panic == nil {
		c.panic = any(http.ErrAbortHandler) // the same to the client
	}
}

func (c *client) hangUp() {
	if k := c.direct(); k != nil {
		k.HangUp()
	}
}

// receive takes bytes that come over the socket.
func (c *client) receive(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled {
		return 0
	}
	if c.slowness > 0 {
		if !c.ready {
			c.readyLater()
			return 0
		}
		c.ready = false
		if len(p) > piece {
			p = p[:piece]
			c.readyLater()
		}
	}
	c.raw = append(c.raw, p...)
	for {
		rest, err := c.chunk()
		if err != nil {
			break
		}
		c.raw = rest
	}
	c.flushed = c.body.Len()
	return len(p)
}

// piece is how much a slow client takes at once over direct delivery, and the largest write
// otherwise.
const piece = 16 << 10

func (c *client) readyLater() {
	if c.timing {
		return
	}
	c.timing = true
	time.AfterFunc(c.slowness, func() {
		c.mu.Lock()
		c.timing, c.ready = false, true
		c.mu.Unlock()
		c.socket.Room()
	})
}

var errIncomplete = errors.New("the chunk has not come to its end")

// chunk takes a chunk from raw.
func (c *client) chunk() (rest []byte, err error) {
	size, after, ok := bytes.Cut(c.raw, []byte("\r\n"))
	if !ok {
		return nil, errIncomplete
	}
	n, err := strconv.ParseUint(string(size), 16, 32)
	if err != nil || c.whole {
		c.t.Errorf("a chunk begins with %q, after the last one: %t", size, c.whole)
	}
	if len(after) < int(n)+2 {
		return nil, errIncomplete
	}
	if string(after[n:n+2]) != "\r\n" {
		c.t.Errorf("a chunk of %d bytes ends with %q", n, after[n:n+2])
	}
	if n == 0 {
		c.whole = true
		return after[2:], nil
	}
	c.body.Write(after[:n])
	c.writes++
	c.flushes++
	return after[n+2:], nil
}
