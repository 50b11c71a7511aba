package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A counter is a TCP proxy that counts the connections to what is behind it:
// an origin whose only worker is busy with a stream cannot say how many it has.
type counter struct {
	addr   string
	target string

	mu              sync.Mutex
	now, max, total int
	open            map[net.Conn]struct{}
}

func countConnections(t *testing.T, target string) *counter {
	t.Helper()
	c := &counter{target: target, open: make(map[net.Conn]struct{})}
	c.addr = accepting(t, c.relay, c.cut)
	return c
}

// accepting relays what connects to the address that it returns, until the test ends, and
// then cuts what there is.
func accepting(t *testing.T, relay func(net.Conn), cut func()) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relay(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cut()
		all.Wait()
	})
	return ln.Addr().String()
}

func (c *counter) relay(client net.Conn) {
	c.mu.Lock()
	c.now++
	c.max = max(c.max, c.now)
	c.total++
	c.open[client] = struct{}{}
	c.mu.Unlock()

	origin, err := net.Dial("tcp", c.target)
	if err == nil {
		var back sync.WaitGroup
		back.Go(func() {
			_, _ = io.Copy(client, origin)
			c.leave(client)
			origin.Close()
		})
		_, _ = io.Copy(origin, client)
		origin.Close()
		back.Wait()
	}
	c.leave(client)
}

// leave takes a connection off the count before it closes it, for whoever sees
// it closed may open the next one at once.
func (c *counter) leave(client net.Conn) {
	c.mu.Lock()
	if _, ok := c.open[client]; ok {
		delete(c.open, client)
		c.now--
	}
	c.mu.Unlock()
	client.Close()
}

// cut closes all connections.
func (c *counter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}

func (c *counter) count() (now, most, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, c.max, c.total
}
