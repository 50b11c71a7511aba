package direct

import (
	"sync/atomic"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A tap tells those of a shard's clients that follow a log that there is something new.
// The log wakes each shard once for all of them. It is owned by the shard's run, but for
// woken.
type tap struct {
	shard   *shard
	log     *hub.Log
	stop    func()      // listening
	woken   atomic.Bool // it is in the shard's inbox
	readers []reader
}

// A reader is one log of a Solo.
type reader struct {
	solo  *Solo
	index int // of the log among those that it follows
}

// tapOf returns the tap of a log.
func (s *shard) tapOf(log *hub.Log) *tap {
	t := s.taps[log]
	if t == nil {
		t = &tap{shard: s, log: log}
		t.stop = log.Listen(t.wake)
		s.taps[log] = t
	}
	return t
}

// wake makes the shard look at the log.
func (t *tap) wake() {
	if !t.woken.Swap(true) {
		t.shard.post(func() { t.shard.tapped = append(t.shard.tapped, t) })
	}
}

// flow tells all clients of the news.
func (t *tap) flow() {
	t.woken.Store(false)
	for _, r := range t.readers {
		r.solo.news |= 1 << r.index
		r.solo.hear()
	}
}

func (t *tap) add(o *Solo, index int) seat {
	t.readers = append(t.readers, reader{o, index})
	return seat{t, len(t.readers) - 1}
}

// remove takes a client out. A log that no client follows is not listened to.
func (t *tap) remove(place int) {
	last := len(t.readers) - 1
	moved := t.readers[last]
	t.readers[place] = moved
	moved.solo.seats[moved.index].place = place
	t.readers[last] = reader{}
	if t.readers = t.readers[:last]; last == 0 {
		t.stop()
		delete(t.shard.taps, t.log)
	}
}
