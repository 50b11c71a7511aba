package faults

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// A member is one client.
type member struct {
	name string
	checker
	line   *wire.Line // shared with others where they speak HTTP/2
	source *eventsource.Source

	more   time.Duration // guarded by mu: stays away for longer
	forget bool          // guarded by mu: comes back as a new page
}

// perConnection is how many clients share an HTTP/2 connection, as the tabs of a
// browser do.
const perConnection = 5

// readBuffer is that of the socket, for each client: whoever stops reading is soon felt.
const readBuffer = 16 << 10

// A crowd is all clients.
type crowd struct {
	members []*member
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// newCrowd starts n clients of the topics, in turn: HTTP/1.1, HTTP/1.1 over TLS,
// and HTTP/2.
func newCrowd(t *testing.T, n int, store *origins.Numbered, plain, secure string, topics []string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{cancel: cancel}
	var shared *http.Client
	var sharedLine *wire.Line
	for i := range n {
		topic := topics[i%len(topics)]
		m := &member{checker: checker{store: store, topic: topic}}
		url, protocol := secure+topic, "HTTP/2"
		switch i / len(topics) % 4 {
		case 0:
			url, protocol = plain+topic, "HTTP/1.1"
			fallthrough
		case 1:
			m.line = &wire.Line{ReadBuffer: readBuffer}
			m.source = &eventsource.Source{URL: url, Client: newClient(m.line, false)}
			if protocol == "HTTP/2" {
				protocol = "HTTP/1.1 over TLS"
			}
		default:
			if shared == nil || i%perConnection == 0 {
				sharedLine = &wire.Line{ReadBuffer: perConnection * readBuffer}
				shared = newClient(sharedLine, true)
			}
			m.line = sharedLine
			m.source = &eventsource.Source{URL: url, Client: shared}
		}
		m.name = fmt.Sprintf("client %d (%s, %s)", i, topic, protocol)
		m.source.OnEvent, m.source.OnPosition, m.source.Delay = m.event, m.position, m.delay
		m.source.OnOpen = func(string, *http.Response) { m.opened() }
		m.source.OnRetry = m.reconnection
		c.members = append(c.members, m)
		c.running.Go(func() {
			if err := m.source.Run(ctx); err != nil {
				m.fail(err)
			}
		})
	}
	t.Cleanup(c.leave)
	return c
}

func (c *crowd) leave() {
	c.cancel()
	c.running.Wait()
	for _, m := range c.members {
		m.source.Client.CloseIdleConnections()
	}
}

func newClient(line *wire.Line, h2 bool) *http.Client {
	transport := &http.Transport{
		DialContext:        line.Dial,
		Protocols:          new(http.Protocols),
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 256 << 10},
	}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetHTTP2(h2)
	return &http.Client{Transport: transport}
}

// delay is how long the client stays away beyond what it was told.
func (m *member) delay() (time.Duration, bool) {
	m.mu.Lock()
	more, forget := m.more, m.forget
	m.more, m.forget = 0, false
	m.mu.Unlock()
	if forget {
		m.anew()
	}
	return more, forget
}

// pick returns n of the clients.
func (c *crowd) pick(r *rand.Rand, n int) []*member {
	some := make([]*member, 0, n)
	for _, i := range r.Perm(len(c.members))[:min(n, len(c.members))] {
		some = append(some, c.members[i])
	}
	return some
}

// cut closes the connection of a client after some bytes. It stays away for
// longer than it has to, or comes back without a position.
func (m *member) cut(bytes int, more time.Duration, forget bool) {
	m.mu.Lock()
	m.more, m.forget = more, forget
	m.mu.Unlock()
	m.line.CutAfter(bytes)
}

func (c *crowd) setOut() {
	for _, m := range c.members {
		m.setOut()
	}
}

// behind counts the clients that have yet to come to event n.
func (c *crowd) behind(n int) (behind int) {
	for _, m := range c.members {
		if m.isBehind(n) {
			behind++
		}
	}
	return behind
}

// failed returns the clients that were told to go for good.
func (c *crowd) failed() (gone []*member) {
	for _, m := range c.members {
		m.mu.Lock()
		if m.checker.failed != nil {
			gone = append(gone, m)
		}
		m.mu.Unlock()
	}
	return gone
}
