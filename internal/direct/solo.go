package direct

import (
	"bytes"
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// MaxLogs is how many logs one Source may read.
const MaxLogs = 64

// A Source has what one client gets that nobody else does, as it reads several logs. Its
// methods are called by a shard: they must not block.
type Source interface {
	Client

	// Next appends what the client gets next to b. news has a bit set for each log that may
	// have something new, by its place in Solo.Follow. It is called when there is news,
	// after Solo.Wake, at Portion.At, and when the client has taken the last portion, if
	// that said that there is more. There is one portion at a time.
	Next(b []byte, news uint64, now time.Time) Portion

	// Taken is told that the client has taken all of the last portion that had bytes.
	Taken()
}

// A Portion is what the client of a Source gets next.
type Portion struct {
	// Bytes are what Next was given, with the first of what the client gets appended. They
	// are copied if its socket does not take all at once.
	Bytes []byte

	// Shared are behind Bytes, and are not copied: a large event of a log.
	Shared []byte

	// More says that there is more at once.
	More bool

	// At is when Next is called again if nothing happens before. Zero: never.
	At time.Time

	// End, if set, ends the client between two events. There must be no bytes then.
	End Reason

	// Pause says that the logs are not followed any more: from now on, somebody else writes
	// to the client. There must be no bytes then.
	Pause bool
}

// A Solo is the socket of a client that has a Source. It is written to either by the shard,
// from Follow on, or by whoever calls Write, from the beginning and after a pause on.
type Solo struct {
	shard  *shard
	source Source
	socket *Socket

	// Owned by the shard's run.
	following bool
	seats     []seat // at the logs that it follows
	news      uint64 // which of these may have something, since Next was called last
	woken     bool   // Next is to be called in any case
	cutAt     time.Duration
}

// A seat is the place of one log of a Solo among the readers that its tap has.
type seat struct {
	tap   *tap
	place int
}

var errGone = errors.New("writing to a socket: it is closed")

// Adopt takes over a connection whose client gets what nobody else does. The socket is w's
// own from then on, unless there is an error. Nothing is followed yet.
func (w *Writer) Adopt(fd int, source Source) (*Solo, error) {
	s, err := w.nextShard()
	if err != nil {
		return nil, err
	}
	o := &Solo{shard: s, source: source, socket: newSocket(source, fd), cutAt: never}
	if err := s.add(o.socket, func() feed { return o }); err != nil {
		return nil, err
	}
	return o, nil
}

// Follow makes the shard write to the client what Source.Next says, as these logs have
// news. It is for whoever would call Write otherwise.
func (o *Solo) Follow(logs []*hub.Log) {
	o.shard.ask(func() {
		if o.socket.gone() {
			return
		}
		o.following, o.woken = true, true
		o.seats = make([]seat, len(logs))
		for i, log := range logs {
			o.seats[i] = o.shard.tapOf(log).add(o, i)
			o.news |= 1 << i // of what came before, nobody has told
		}
		o.shard.serve(o.socket)
	})
}

// Write sends parts, and returns when the client's socket has taken them. The error says
// that the socket is closed, or about to be. Nothing may be followed meanwhile.
func (o *Solo) Write(parts ...[]byte) error {
	done := make(chan error, 1)
	o.shard.ask(func() {
		k := o.socket
		if k.gone() || k.ending {
			done <- errGone
			return
		}
		k.rest = restOfParts(parts)
		k.rest.done = done
		o.shard.patience(k)
		o.shard.serve(k)
	})
	select {
	case err := <-done:
		return err
	case <-o.shard.done: // it has had no socket for a while
		return errGone
	}
}

// Wake makes Next be called, if the logs are followed.
func (o *Solo) Wake() {
	o.shard.ask(func() {
		o.woken = true
		o.hear()
	})
}

// End ends the client between two events, at once. It may be called during Write, which
// comes to its end then, and nothing is written after it.
func (o *Solo) End(reason Reason) {
	o.shard.ask(func() {
		k := o.socket
		if k.gone() || k.ending {
			return
		}
		k.ending, k.reason = true, reason
		k.schedule()
		if k.rest == nil {
			o.shard.serve(k)
		}
	})
}

// Bound makes the socket be cut if there are bytes for it after d that it has not taken.
func (o *Solo) Bound(d time.Duration) {
	o.shard.ask(func() {
		k := o.socket
		o.cutAt = min(o.cutAt, o.shard.writer.now()+d)
		if !k.gone() && k.rest != nil {
			k.cutAt = min(k.cutAt, o.cutAt)
			k.schedule()
		}
	})
}

// hear lets the client have what is new, if its socket is free.
func (o *Solo) hear() {
	if k := o.socket; o.following && k.rest == nil && !k.busy && !k.gone() {
		k.busy = true
		o.shard.busy = append(o.shard.busy, k)
	}
}

// home implements feed.
func (o *Solo) home() *shard { return o.shard }

// arrive implements feed.
func (o *Solo) arrive(k *Socket) { k.schedule() }

// supply implements feed.
func (o *Solo) supply(k *Socket) bool {
	s := o.shard
	switch {
	case k.ending:
		s.farewell(k, k.reason)
		return true
	case !o.following || o.news == 0 && !o.woken:
		return false
	}
	p, ok := o.next()
	switch {
	case !ok:
		s.remove(k, ClientGone)
		return false
	case p.End != "":
		k.ending, k.reason = true, p.End
		return true
	case p.Pause:
		o.unfollow()
		return false
	}
	o.woken = p.More
	if !p.At.IsZero() {
		o.alarm(p.At.Sub(s.writer.start))
	}
	if len(p.Bytes) == chunkHead && len(p.Shared) == 0 {
		return p.More
	}
	return o.send(k, &p)
}

// next asks the source. It reports false if that has panicked.
func (o *Solo) next() (p Portion, ok bool) {
	news, w := o.news, o.shard.writer
	o.news = 0
	var head [chunkHead]byte
	b := append(o.shard.scratch[:0], head[:]...)
	w.call(func() {
		p = o.source.Next(b, news, time.Now())
		ok = true
	})
	return p, ok
}

// send sends a portion. It reports whether there may be more to do for the client now.
func (o *Solo) send(k *Socket, p *Portion) bool {
	s := o.shard
	frame := setChunkHead(p.Bytes, len(p.Shared))
	s.scratch = p.Bytes
	defer s.released()
	if len(p.Shared) > 0 {
		k.rest = &rest{bytes: bytes.Clone(frame), more: [][]byte{p.Shared, []byte(chunkEnd)}}
		s.patience(k)
		return true
	}
	frame = append(frame, chunkEnd...)
	n, err := s.network.Send(k.fd, frame)
	switch {
	case err != nil:
		s.remove(k, ClientGone)
		return false
	case n < len(frame):
		k.rest = &rest{bytes: bytes.Clone(frame[n:])}
		s.patience(k)
		return false
	}
	o.source.Taken()
	return p.More
}

// alarm makes Next be called at some time. One that rings earlier does no harm, and is left:
// most are put off with each portion.
func (o *Solo) alarm(at time.Duration) {
	if k := o.socket; at < k.alarm {
		k.alarm = at
		k.schedule()
	}
}

// ring implements feed.
func (o *Solo) ring(k *Socket) {
	k.alarm = never
	k.schedule()
	o.woken = true
	if k.rest == nil {
		o.shard.serve(k)
	}
}

// took implements feed.
func (o *Solo) took(_ *Socket, r *rest) {
	if r.done != nil {
		r.done <- nil
		return
	}
	o.source.Taken()
}

// unfollow makes the logs tell nothing any more.
func (o *Solo) unfollow() {
	for _, at := range o.seats {
		at.tap.remove(at.place)
	}
	o.following, o.seats, o.news, o.woken = false, nil, 0, false
}

// cutsAt implements feed.
func (o *Solo) cutsAt() time.Duration { return o.cutAt }

// forget implements feed.
func (o *Solo) forget(*Socket) { o.unfollow() }

// progress implements feed. What a client has got of each of its logs, its Source knows.
func (o *Solo) progress(*Socket) (events, bytes uint64, cursor hub.Cursor) { return 0, 0, 0 }
