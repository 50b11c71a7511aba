package direct

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// Options are the same for all that a writer delivers.
type Options struct {
	// Timeout is how long a client may take nothing of what is to be sent.
	Timeout time.Duration

	// Panicked is called with what a method of a Client has panicked with: one client
	// must not end the process. Default: it does.
	Panicked func(value any)

	// Network opens the sockets' side of a shard. Default: the kernel's.
	Network func() (Network, error)
}

// A Stream is what a group of clients gets. It must be comparable. Its methods are
// called by shards, one of several at a time: they must not block.
type Stream interface {
	// Ending says how all clients are to end; now is false while they are not. It is
	// asked whenever the log wakes its readers.
	Ending() (e Ending, now bool)

	// Heartbeat returns what is sent when the log has counted one. It is not asked for
	// clients that get gzip, nor is Gap: a rendition knows both.
	Heartbeat() []byte

	// Gap returns what is sent in place of a gap in the log. It is never empty.
	Gap() []byte

	// Delivered is told that a batch has been written to a number of clients.
	Delivered(clients int, d Delivery)

	// Beaten is told that a heartbeat has been written to a number of clients.
	Beaten(clients int)
}

// A Delivery is a batch that was written.
type Delivery struct {
	Events, Bytes int
	Since         time.Time // when the first of it was published

	// Compressed is how many bytes of gzip it was, or 0 if it was not.
	Compressed int

	leg *leg // of a rendition; nil if it was not compressed
}

// An Ending is how the clients of a stream end.
type Ending struct {
	Reason Reason

	// Over is the time over which they end, each at a random moment.
	Over time.Duration

	// Drain lets each have what is in the log first.
	Drain bool

	// Grace, if set, is how long a client may take that does not read.
	Grace time.Duration
}

// A Reason is why a client's stream has ended: one of these, or what whoever ended
// it has given.
type Reason string

const (
	ClientGone Reason = "client_gone" // the client has closed its connection, or half of it
	Slow       Reason = "slow"        // the log has passed its cursor
	Stalled    Reason = "stalled"     // it took nothing for Options.Timeout
)

// A Client is told what becomes of its socket. Its methods are called by a shard:
// they must not block.
type Client interface {
	// Farewell returns what the client is told last when it ends between two
	// events.
	Farewell(Reason) []byte

	// Ended is called once, when the socket is closed.
	Ended(reason Reason, events, bytes uint64)
}

// A Handover is a connection that a writer takes over: its socket, and how far its
// client is. The header of its response has been sent, and what there was of the
// body, in whole chunks.
type Handover struct {
	FD     int // of a socket that does not block
	Client Client
	Stream Stream
	Log    *hub.Log
	Cursor hub.Cursor

	// Gzip is set if the client gets gzip, in step or not. Of the clients of one stream, all
	// get the same rendition, or none does. The writer closes it when the client has ended.
	Gzip *gzip.Stream

	// Events and Bytes were delivered before.
	Events, Bytes uint64

	// EndAt is when the client is to end for EndReason, if it is set.
	EndAt     time.Time
	EndReason Reason
}

// A Writer delivers streams. Each of its shards is there for as long as it has
// sockets, and a little longer.
type Writer struct {
	opts  Options
	start time.Time

	mu sync.Mutex

	// Guarded by mu.
	shards  []*shard // nil where there is none now
	next    int      // of shards, to take a connection over
	running map[*shard]struct{}
	closed  bool
}

var errClosed = errors.New("taking over a connection: the writer is closed")

// NewWriter returns a writer.
func NewWriter(opts Options) *Writer {
	if opts.Network == nil {
		opts.Network = OpenKernel
	}
	w := &Writer{
		opts:    opts,
		start:   time.Now(),
		shards:  make([]*shard, min(runtime.GOMAXPROCS(0), maxShards)),
		running: make(map[*shard]struct{}),
	}
	return w
}

// Take takes over a connection. The socket is w's own from then on, unless there is
// an error.
func (w *Writer) Take(h *Handover) (*Socket, error) {
	s, err := w.nextShard()
	if err != nil {
		return nil, err
	}
	return s.take(h)
}

// nextShard returns the shard that takes the next connection over, and that stays until
// it has.
func (w *Writer) nextShard() (*shard, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	s := w.shards[w.next]
	if s == nil {
		s = newShard(w)
		w.shards[w.next] = s
		w.running[s] = struct{}{}
	}
	w.next = (w.next + 1) % len(w.shards)
	s.expect()
	return s, nil
}

// call calls a method of a client.
func (w *Writer) call(method func()) {
	if w.opts.Panicked != nil {
		defer func() {
			if p := recover(); p != nil {
				w.opts.Panicked(p)
			}
		}()
	}
	method()
}

// maxShards is enough for what a network takes: a shard makes some 200,000
// deliveries a second.
const maxShards = 16

// release lets a shard end that has no sockets, unless one is on its way.
func (w *Writer) release(s *shard) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expected > 0 || len(s.arrived) > 0 {
		return false
	}
	w.forget(s)
	return true
}

// forget takes no more connections over with a shard. w.mu must be held.
func (w *Writer) forget(s *shard) {
	if i := slices.Index(w.shards, s); i >= 0 {
		w.shards[i] = nil
	}
}

// ended is called when a shard has ended, or could not begin.
func (w *Writer) ended(s *shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(s)
	delete(w.running, s)
}

// Close ends the shards once the sockets that they have are gone, and does not wait
// for that. No more connections are taken over.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for s := range w.running {
		s.close()
	}
}

// Wait waits for all shards to end, as Close has made them, or is to make them.
func (w *Writer) Wait() {
	w.mu.Lock()
	running := slices.Collect(maps.Keys(w.running))
	w.mu.Unlock()
	for _, s := range running {
		<-s.done
	}
}

// now is the time as the shards have it.
func (w *Writer) now() time.Duration { return time.Since(w.start) }
