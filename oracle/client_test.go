package oracle

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// An identity is who asks: all that a site can tell clients apart by.
type identity struct {
	name    string
	from    string // source address, 127.0.0.1 if empty
	path    string // "/events" if empty
	host    string
	version int // of HTTP, 1 if zero
	header  []string
	cert    *tls.Certificate
}

// identities are who asks each site, in this order.
var identities = []identity{
	{name: "outsider"},
	{name: "from 127.0.0.2", from: "127.0.0.2"},
	{name: "with the insiders' agent", header: []string{"User-Agent", "insider"}},
	{name: "with a cookie", header: []string{"Cookie", "session=alice"}},
	{name: "with a password", header: []string{"Authorization", "Basic YWxpY2U6c2VjcmV0"}},
	{name: "in German", header: []string{"Accept-Language", "de"}},
	{name: "with a query", path: "/events?k=1"},
	{name: "of another path", path: "/a/events"},
	{name: "through a proxy", from: "127.0.0.9", header: []string{"X-Forwarded-For", "127.0.0.2", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.example"}},
	{name: "who claims to be a proxy", header: []string{"X-Forwarded-For", "127.0.0.2", "X-Forwarded-Proto", "https"}},
	{name: "outsider again"},
	{name: "from 127.0.0.2 again", from: "127.0.0.2"},
}

// A client is a request under way.
type client struct {
	identity
	status int
	header http.Header
	err    error
	cancel context.CancelFunc

	mu     sync.Mutex
	body   string   // of an answer that is no stream
	events []string // data of ticks, in order
	hellos []string
	ended  bool
	grown  chan struct{} // closed when one of the above has changed
}

// connect makes the request and returns when its header is there.
func connect(url string, who identity) *client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{identity: who, cancel: cancel, grown: make(chan struct{})}
	path := who.path
	if path == "" {
		path = "/events"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		c.err = err
		return c
	}
	r.Host = cmp.Or(who.host, "127.0.0.1")
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("User-Agent", "outsider")
	for i := 0; i < len(who.header); i += 2 {
		r.Header.Set(who.header[i], who.header[i+1])
	}
	dialer := &net.Dialer{Timeout: patience}
	if who.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(who.from)}
	}
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"} //nolint:gosec // a test's
	if who.cert != nil {
		config.Certificates = []tls.Certificate{*who.cert}
	}
	transport := &http.Transport{
		DialContext:           dialer.DialContext,
		TLSClientConfig:       config,
		ForceAttemptHTTP2:     who.version == 2,
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ResponseHeaderTimeout: 2 * patience,
	}
	resp, err := transport.RoundTrip(r) // redirects are answers
	if err != nil {
		c.err = err
		c.end()
		return c
	}
	c.status, c.header = resp.StatusCode, resp.Header
	if !c.isStream() {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		c.body = string(body)
		c.end()
		return c
	}
	go c.read(resp.Body)
	return c
}

func (c *client) isStream() bool {
	return c.status == http.StatusOK && strings.HasPrefix(c.header.Get("Content-Type"), "text/event-stream")
}

func (c *client) read(body io.ReadCloser) {
	defer body.Close()
	defer c.end()
	lines := bufio.NewScanner(body)
	event := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "event":
			event = value
		case name == "data" && event == "hello":
			c.change(func() { c.hellos = append(c.hellos, value) })
		case name == "data":
			c.change(func() { c.events = append(c.events, value) })
		case name == "":
			event = ""
		}
	}
}

func (c *client) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.grown)
	c.grown = make(chan struct{})
}

func (c *client) end() { c.change(func() { c.ended = true }) }

// patience is how long anything may take. It is there to end a test that has failed.
const patience = 10 * time.Second

// await waits for the nth tick, and reports whether it came before the end.
func (c *client) await(n int) bool {
	prefix := fmt.Sprintf("tick %d ", n)
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		got := slices.ContainsFunc(c.events, func(e string) bool { return strings.HasPrefix(e, prefix) })
		ended, grown := c.ended, c.grown
		c.mu.Unlock()
		if got || ended {
			return got
		}
		select {
		case <-grown:
		case <-deadline:
			return false
		}
	}
}

// ticks returns what has come of the ticks from one to another.
func (c *client) ticks(from, to int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []string
	for _, e := range c.events {
		var n int
		if _, err := fmt.Sscanf(e, "tick %d", &n); err == nil && from <= n && n <= to {
			some = append(some, e)
		}
	}
	return some
}

// answer describes how the site has answered, but for what a stream brings.
func (c *client) answer() string {
	if c.err != nil {
		return "no answer"
	}
	if c.isStream() {
		return "a stream"
	}
	return fmt.Sprintf("status %d, Location %q, WWW-Authenticate %q, body %q",
		c.status, c.header.Get("Location"), c.header.Get("Www-Authenticate"), c.body)
}
