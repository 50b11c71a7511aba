// Package directtest has sockets in memory, for tests of direct delivery without a
// kernel: in a synctest bubble their order and their time are the test's.
package directtest

import (
	"errors"
	"sync"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
)

// Sockets are all sockets of a test, whichever network watches them.
type Sockets struct {
	mu sync.Mutex

	// Guarded by mu.
	open map[int32]*Socket
}

// A Socket is one end of a connection in memory.
type Socket struct {
	FD int32

	// Take takes bytes, and returns how many: fewer than all mean that the socket
	// is full until Room is called. It is called with nothing locked.
	Take func(p []byte) int

	// Held returns how many of the bytes that were taken the other end has not read. It
	// is called with nothing locked. Nil: not known.
	Held func() int

	// Closed is closed when the socket is.
	Closed chan struct{}

	all *Sockets

	// Guarded by all.mu.
	network *Network
	tag     uint32
	broken  bool
}

// New returns an open socket.
func (s *Sockets) New(take func(p []byte) int) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[int32]*Socket)
	}
	// A number that is free is used again, as the kernel does.
	fd := int32(3)
	for s.open[fd] != nil {
		fd++
	}
	k := &Socket{FD: fd, Take: take, Closed: make(chan struct{}), all: s}
	s.open[fd] = k
	return k
}

// HangUp is the other end's closing of the connection, or of its half.
func (k *Socket) HangUp() { k.report(direct.Event{Gone: true}) }

// Room says that the socket takes bytes again.
func (k *Socket) Room() { k.report(direct.Event{Room: true}) }

// Break makes the next send fail, without an event before.
func (k *Socket) Break() {
	k.all.mu.Lock()
	defer k.all.mu.Unlock()
	k.broken = true
}

func (k *Socket) report(e direct.Event) {
	k.all.mu.Lock()
	network := k.network
	e.FD, e.Tag = k.FD, k.tag
	k.all.mu.Unlock()
	if network == nil {
		return
	}
	select {
	case network.events <- e:
	case <-k.Closed:
	}
}

// Open opens a network. It is a direct.Options.Network.
func (s *Sockets) Open() (direct.Network, error) {
	return &Network{all: s, events: make(chan direct.Event), closed: make(chan struct{})}, nil
}

// A Network watches sockets.
type Network struct {
	all    *Sockets
	events chan direct.Event
	closed chan struct{}
}

var errClosed = errors.New("the network is closed")

func (n *Network) Add(fd int32, tag uint32) error {
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	k := n.all.open[fd]
	if k == nil {
		return errors.New("there is no such socket")
	}
	k.network, k.tag = n, tag
	return nil
}

func (n *Network) Wait(events []direct.Event) (int, error) {
	select {
	case events[0] = <-n.events:
		return 1, nil
	case <-n.closed:
		return 0, errClosed
	}
}

func (n *Network) Send(fd int32, p []byte) (int, error) {
	n.all.mu.Lock()
	k := n.all.open[fd]
	broken := k == nil || k.broken
	n.all.mu.Unlock()
	if broken {
		return 0, errors.New("the connection is broken")
	}
	return k.Take(p), nil
}

func (n *Network) SendAll(fds []int32, p []byte, sent []int32) {
	for i, fd := range fds {
		if taken, err := n.Send(fd, p); err != nil {
			sent[i] = -1
		} else {
			sent[i] = int32(taken)
		}
	}
}

func (n *Network) Held(fd int32) int {
	n.all.mu.Lock()
	k := n.all.open[fd]
	n.all.mu.Unlock()
	if k == nil || k.Held == nil {
		return 0
	}
	return k.Held()
}

func (n *Network) Shut(fd int32) {
	n.all.mu.Lock()
	k := n.all.open[fd]
	delete(n.all.open, fd)
	n.all.mu.Unlock()
	close(k.Closed)
}

func (n *Network) Close() error {
	close(n.closed)
	return nil
}
