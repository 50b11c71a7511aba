package multiplex

import (
	"context"
	"sync"
)

// maxPiped is what waits at most of a stream that is one client's alone, in bytes, unless
// one event is larger. Its origin then waits for the client, as it does without us.
const maxPiped = 64 << 10

// A pipe takes events from the goroutine of the request that they are the answer to, to
// that of the connection.
type pipe struct {
	notify func() // that there is something to take

	mu sync.Mutex

	// Guarded by mu.
	wire []byte        // blocks that wait
	room chan struct{} // closed when they are taken, if somebody waits for that
}

// put waits for room and adds blocks. The error is that of ctx.
func (p *pipe) put(ctx context.Context, wire []byte) error {
	for {
		p.mu.Lock()
		if len(p.wire) == 0 || len(p.wire)+len(wire) <= maxPiped {
			p.wire = append(p.wire, wire...)
			p.mu.Unlock()
			p.notify()
			return nil
		}
		if p.room == nil {
			p.room = make(chan struct{})
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take returns the blocks that wait, which are the caller's then.
func (p *pipe) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	wire := p.wire
	p.wire = nil
	if p.room != nil {
		close(p.room)
		p.room = nil
	}
	return wire
}
