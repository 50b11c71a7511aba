package direct

import (
	"container/heap"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A Socket is a client's connection. There is one for every client: it is laid out
// to be small.
type Socket struct {
	client Client
	feed   feed
	fd     int32
	tag    uint32

	// What follows is owned by the shard's run.

	gzip   *gzip.Stream  // nil: it gets the log as it is. The mark is the crowd's while it is in one
	place  int32         // in crowd.live, or behind
	timer  int32         // in shard.timers, or unset
	rest   *rest         // of a frame, which the socket has not taken yet
	alarm  time.Duration // when the feed is asked about it; of one in a group, when it ends
	cutAt  time.Duration // unless its client takes something before; only while there is a rest
	reason Reason        // why it ends
	ending bool          // it ends as soon as it is between two events
	last   bool          // the rest is the last that it gets
	busy   bool          // it is in shard.busy

	// Of a socket of a group, guarded by its mu. In a crowd, events and bytes are what is to be
	// added to the crowd's, and wrap around.
	waits         bool       // for a restart point of gzip
	cursor        hub.Cursor // of the next entry; what the rest is of counts as not taken
	events, bytes uint64
}

// newSocket returns a socket that is served by itself.
func newSocket(client Client, fd int) *Socket {
	return &Socket{client: client, fd: int32(fd), place: behind, timer: unset, alarm: never}
}

// A rest is what a socket has not taken yet of a frame, and what the frame was.
type rest struct {
	bytes    []byte
	more     [][]byte // that come after these
	delivery Delivery
	beat     bool
	done     chan<- error // told when it is taken, or never will be; nil: nobody waits

	lookAt time.Duration // when to ask the kernel whether the client takes anything
	uptake Uptake
}

const (
	behind = -1 // the place of a socket that is served by itself
	unset  = -1
	never  = time.Duration(1<<63 - 1)
)

// Progress tells what the client has got, and the cursor of its next entry.
func (s *Socket) Progress() (events, bytes uint64, cursor hub.Cursor) { return s.feed.progress(s) }

// End ends the client between two events, at once.
func (s *Socket) End(reason Reason) {
	sh := s.feed.home()
	sh.ask(func() {
		if !s.gone() {
			s.endBy(sh.writer.now(), reason)
		}
	})
}

// endBy makes the client end at some moment, unless it is to end earlier
// anyway.
func (s *Socket) endBy(at time.Duration, reason Reason) {
	if at < s.alarm {
		s.alarm, s.reason = at, reason
		s.schedule()
	}
}

// due is when something is to be done about the socket if nothing happens before.
func (s *Socket) due() time.Duration {
	due := never
	if !s.ending {
		due = s.alarm
	}
	if s.rest != nil {
		due = min(due, s.cutAt, s.rest.lookAt)
	}
	return due
}

// schedule puts the socket where its due time is among the timers.
func (s *Socket) schedule() {
	timers := &s.feed.home().timers
	switch at, set := s.due(), s.timer != unset; {
	case at == never && set:
		heap.Remove(timers, int(s.timer))
	case at == never:
	case set:
		(*timers)[s.timer].at = at
		heap.Fix(timers, int(s.timer))
	default:
		heap.Push(timers, timer{at, s})
	}
}

// timers are the sockets that something is to be done about, the soonest first: a
// heap. Most sockets are not among them.
type timers []timer

type timer struct {
	at     time.Duration
	socket *Socket
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at < t[j].at }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].socket.timer, t[j].socket.timer = int32(i), int32(j)
}

func (t *timers) Push(x any) {
	entry := x.(timer)
	entry.socket.timer = int32(len(*t))
	*t = append(*t, entry)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	entry := (*t)[last]
	(*t)[last] = timer{}
	*t = (*t)[:last]
	entry.socket.timer = unset
	return entry
}
