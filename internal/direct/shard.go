package direct

import (
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A shard owns some of the sockets.
type shard struct {
	writer  *Writer
	kick    chan struct{} // has room for one: run looks again
	done    chan struct{} // closed when run has ended, and what it has started
	begin   func() error  // opens the network and starts run, once
	network Network       // set by begin

	mu sync.Mutex

	// Guarded by mu.
	inbox    // what run has to look at
	groups   map[Stream]*group
	lastTag  uint32
	expected int // connections that are about to be taken over

	// Owned by run.
	taps    map[*hub.Log]*tap
	taken   inbox             // of the last turn, kept for its memory
	sockets map[int32]*Socket // by file descriptor
	timers  timers
	turns          // of the next turn
	before  turns  // of the last one, kept for its memory
	scratch []byte // the last frame, if nobody holds it
	sent    []int32
}

// An inbox is news for a shard.
type inbox struct {
	arrived []*Socket
	woken   []*group
	tapped  []*tap
	seen    []Event
	asked   []func() // what somebody wishes to be done
	closed  bool
}

// turns are those that are to be served.
type turns struct {
	rounds []*group  // that have more to deliver
	busy   []*Socket // that have more to take
}

func newShard(w *Writer) *shard {
	s := &shard{
		writer:  w,
		kick:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		groups:  make(map[Stream]*group),
		taps:    make(map[*hub.Log]*tap),
		sockets: make(map[int32]*Socket),
	}
	s.begin = sync.OnceValue(func() (err error) {
		if s.network, err = w.opts.Network(); err != nil {
			w.ended(s)
			close(s.done)
			return err
		}
		go s.run()
		return nil
	})
	return s
}

// expect keeps the shard until take is called once more.
func (s *shard) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected++
}

// post lets run see what change has put into the inbox.
func (s *shard) post(change func()) {
	s.mu.Lock()
	change()
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// ask makes run do something.
func (s *shard) ask(do func()) {
	s.post(func() { s.asked = append(s.asked, do) })
}

// take begins to serve a connection of a group.
func (s *shard) take(h *Handover) (*Socket, error) {
	k := newSocket(h.Client, h.FD)
	k.gzip, k.cursor, k.events, k.bytes = h.Gzip, h.Cursor, h.Events, h.Bytes
	k.waits = h.Gzip != nil && !h.Gzip.IsInStep()
	if !h.EndAt.IsZero() {
		k.alarm, k.reason = h.EndAt.Sub(s.writer.start), h.EndReason
	}
	return k, s.add(k, func() feed { return s.join(h) })
}

// add begins to serve a socket. join is called with s.mu held.
func (s *shard) add(k *Socket, join func() feed) error {
	err := s.begin()
	if err != nil {
		return err
	}
	s.post(func() {
		s.expected--
		s.lastTag++
		k.tag = s.lastTag
		// With the lock held, what the kernel sees of the socket is seen by run
		// after its arrival.
		if err = s.network.Add(k.fd, k.tag); err == nil {
			k.feed = join()
			s.arrived = append(s.arrived, k)
		}
	})
	return err
}

// watch tells run what the kernel sees.
func (s *shard) watch() {
	events := make([]Event, 128)
	for {
		n, err := s.network.Wait(events)
		if err != nil {
			return
		}
		s.post(func() { s.seen = append(s.seen, events[:n]...) })
	}
}

// close makes run end as soon as there are no sockets.
func (s *shard) close() {
	s.post(func() { s.closed = true })
}

// idleTime is how long a shard stays that has no sockets.
const idleTime = 5 * time.Second

// run serves the sockets.
func (s *shard) run() {
	defer close(s.done)
	defer s.writer.ended(s)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(s.watch)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for idle := false; ; {
		for s.work() {
		}
		if len(s.sockets) == 0 && (s.taken.closed || idle) && s.writer.release(s) {
			_ = s.network.Close()
			return
		}
		switch {
		case len(s.timers) > 0:
			alarm.Reset(s.timers[0].at - s.writer.now())
		case len(s.sockets) == 0:
			alarm.Reset(idleTime)
		}
		idle = false
		select {
		case <-s.kick:
		case <-alarm.C:
			idle = len(s.sockets) == 0
		}
	}
}

const (
	// shortTurn is how long a turn may take without a rest.
	shortTurn = time.Millisecond

	// maxRest is the longest rest.
	maxRest = 20 * time.Millisecond
)

// work takes a turn, and rests for as long as that has taken. Go looks at the network
// when a processor has nothing to do, or once in 10 ms: shards that kept all of them
// busy would be the last to hear of an event, which has to get through three
// goroutines to come to them. What comes meanwhile goes out with one send.
func (s *shard) work() (more bool) {
	start := s.writer.now()
	more = s.turn()
	if took := s.writer.now() - start; took > shortTurn {
		time.Sleep(min(took, maxRest))
	}
	return more
}

// turn does what there is to do, in small portions so that everybody gets one. It
// reports whether there is more.
func (s *shard) turn() (more bool) {
	s.mu.Lock()
	s.taken, s.inbox = s.inbox, s.taken
	s.inbox.reset(s.taken.closed)
	s.mu.Unlock()

	for _, k := range s.taken.arrived {
		s.sockets[k.fd] = k
		k.feed.arrive(k)
	}
	for _, e := range s.taken.seen {
		s.react(e)
	}
	for _, do := range s.taken.asked {
		do()
	}
	for _, g := range s.taken.woken {
		g.woken.Store(false)
		s.queue(g)
	}
	for _, t := range s.taken.tapped {
		t.flow()
	}

	rounds, busy := s.rounds, s.busy
	s.rounds, s.busy = s.before.rounds, s.before.busy
	for _, g := range rounds {
		g.queued = false
		if g.round() {
			s.queue(g)
		}
	}
	for _, k := range busy {
		k.busy = false
		if !k.gone() && k.place == behind { // it may have caught up since
			s.serve(k)
		}
	}
	s.before.rounds, s.before.busy = emptied(rounds), emptied(busy)
	s.expire()
	return len(s.rounds) > 0 || len(s.busy) > 0
}

// queue gives a group a round in the next turn.
func (s *shard) queue(g *group) {
	if !g.queued {
		g.queued = true
		s.rounds = append(s.rounds, g)
	}
}

// reset empties the inbox.
func (b *inbox) reset(closed bool) {
	b.arrived, b.woken, b.tapped = emptied(b.arrived), emptied(b.woken), emptied(b.tapped)
	b.seen, b.asked = emptied(b.seen), emptied(b.asked)
	b.closed = closed
}

// emptied keeps the memory of a list unless that has grown large.
func emptied[T any](s []T) []T {
	const large = 4096
	if cap(s) > large {
		return nil
	}
	clear(s)
	return s[:0]
}

func (s *shard) react(e Event) {
	k := s.sockets[e.FD]
	switch {
	case k == nil, k.tag != e.Tag: // it was closed
	case e.Gone:
		s.remove(k, ClientGone)
	case e.Room && k.rest != nil:
		s.serve(k)
	}
}

// expire deals with the sockets whose time has come.
func (s *shard) expire() {
	now := s.writer.now()
	for len(s.timers) > 0 && s.timers[0].at <= now {
		k := s.timers[0].socket
		if k.rest != nil {
			s.look(k, now)
			if k.cutAt <= now {
				s.remove(k, Stalled)
				continue
			}
		}
		if !k.ending && k.alarm <= now {
			k.feed.ring(k)
		}
	}
}

// frame returns the chunk of a parcel, valid until the next is asked for, unless it is
// held.
func (s *shard) frame(p *parcel) []byte {
	s.scratch = p.appendFrame(s.scratch[:0])
	return s.scratch
}

// hold lets the last frame be kept for longer.
func (s *shard) hold() { s.scratch = nil }

// maxScratch is how large a frame's memory may be to be used again.
const maxScratch = 128 << 10

// released forgets the memory of a frame that was large.
func (s *shard) released() {
	if cap(s.scratch) > maxScratch {
		s.scratch = nil
	}
}
