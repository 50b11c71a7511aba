package demo

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// client is one client of a handler, without a network: what it was sent is
// there as soon as the handler has flushed it.
type client struct {
	header http.Header
	cancel context.CancelFunc
	done   chan struct{}

	// Guarded by mu
	mu       sync.Mutex
	status   int
	written  bytes.Buffer
	flushed  string
	panicked any
}

// connect starts a request in a goroutine of its own, which ends with the test.
func connect(t *testing.T, h caddyhttp.MiddlewareHandler, path string, header ...string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{header: make(http.Header), cancel: cancel, done: make(chan struct{})}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	go func() {
		defer close(c.done)
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.panicked = recover()
		}()
		if err := h.ServeHTTP(c, r, nil); err != nil {
			t.Errorf("serving %s: %v", path, err)
		}
	}()
	t.Cleanup(c.hangUp)
	synctest.Wait()
	return c
}

func (c *client) hangUp() {
	c.cancel()
	<-c.done
}

func (c *client) Header() http.Header { return c.header }

func (c *client) WriteHeader(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == 0 {
		c.status = status
	}
}

func (c *client) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written.Write(p)
}

func (c *client) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushed += c.written.String()
	c.written.Reset()
}

func (c *client) answer() (status int, panicked any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.panicked
}

// field returns the values of a field in what has arrived so far.
func (c *client) field(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var values []string
	for line := range strings.Lines(c.flushed) {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

func (c *client) ids() string { return strings.Join(c.field("id"), " ") }

func (c *client) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// pass lets time go by inside a bubble, and everybody act on it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func newContext(t *testing.T) caddy.Context {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	return ctx
}

// newOriginHandler is an origin of its own, not the one of the process.
func newOriginHandler(t *testing.T, limit int) *Origin {
	t.Helper()
	h := &Origin{MaxConnections: limit, origin: newOrigin(time.Now())}
	if err := h.Provision(newContext(t)); err != nil {
		t.Fatalf("provisioning origin: %v", err)
	}
	return h
}
