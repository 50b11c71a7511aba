// Package wire breaks connections in the ways that networks do.
package wire

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
)

var errCut = errors.New("the connection was cut on purpose")

// A Line is a client's way to a server: it dials, and harms what it has dialled.
type Line struct {
	// ReadBuffer, if set, is how much the kernel takes for a client that does
	// not read.
	ReadBuffer int

	mu    sync.Mutex
	conns map[*conn]struct{}

	// Guarded by mu.
	stalled chan struct{} // closed when reading goes on; nil if it does
}

// Dial is for a transport.
func (l *Line) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok && l.ReadBuffer > 0 {
		_ = tcp.SetReadBuffer(l.ReadBuffer)
	}
	c := &conn{Conn: raw, line: l, budget: -1, closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*conn]struct{})
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// Open is how many connections there are.
func (l *Line) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// CutAfter closes each open connection once as many more bytes have been read
// from it.
func (l *Line) CutAfter(bytes int) {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range open { // without the lock, for one that is closed takes it
		c.cutAfter(bytes)
	}
}

// Stall stops reading until the function that it returns is called.
func (l *Line) Stall() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stalled != nil {
		return func() {}
	}
	stalled := make(chan struct{})
	l.stalled = stalled
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stalled = nil
		close(stalled)
	}
}

func (l *Line) waiting() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stalled
}

type conn struct {
	net.Conn
	line   *Line
	once   sync.Once
	closed chan struct{}

	mu     sync.Mutex
	budget int // bytes until the cut; negative: no cut
}

func (c *conn) cutAfter(bytes int) {
	c.mu.Lock()
	c.budget = bytes
	c.mu.Unlock()
	if bytes == 0 {
		_ = c.Close()
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if stalled := c.line.waiting(); stalled != nil {
		select {
		case <-stalled:
		case <-c.closed:
			return 0, errCut
		}
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget < 0 {
		return n, err
	}
	if c.budget > n {
		c.budget -= n
		return n, err
	}
	n, c.budget = c.budget, 0
	_ = c.Close()
	return n, errCut
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.line.mu.Lock()
		delete(c.line.conns, c)
		c.line.mu.Unlock()
	})
	return c.Conn.Close()
}
