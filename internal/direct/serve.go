package direct

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// portion is how many frames a socket that is behind gets before others have their
// turn.
const portion = 16

// serve gives a socket that is behind what it takes. Its group gets it back once it
// has caught up.
func (s *shard) serve(k *Socket) {
	for range portion {
		if k.rest != nil && !s.flush(k) {
			return
		}
		g := k.group
		if k.ending && !g.drains() {
			s.farewell(k, k.reason)
			continue
		}
		limit := g.admit(k)
		if c := g.crowdOf(k); !k.ending && c.meets(k) {
			c.rejoin(k)
			return
		}
		next := g.lookFor(k, limit)
		switch {
		case next.lagged:
			s.farewell(k, Slow)
		case len(next.bytes) > 0:
			k.rest = next.rest()
			s.patience(k)
		case k.ending:
			s.farewell(k, k.reason)
		default:
			g.crowdOf(k).round() // it is ahead of the others
		}
	}
	if !k.busy {
		k.busy = true
		s.busy = append(s.busy, k)
	}
}

// admit lets a socket that is behind get in step, if it waits for a restart point and there is
// one where it is. It returns where the next may be.
func (g *group) admit(k *Socket) (limit hub.Cursor) {
	if !k.waits {
		return everything
	}
	limit, ok := k.gzip.Enter(k.cursor, g.waiting.beat)
	if ok {
		g.mu.Lock()
		k.waits = false
		g.mu.Unlock()
	}
	return limit
}

// flush sends of the rest what the socket takes. It reports whether that was all,
// and there is more to do for the socket.
func (s *shard) flush(k *Socket) bool {
	r := k.rest
	for sent := false; ; sent = true {
		n, err := s.network.Send(k.fd, r.bytes)
		if err != nil {
			s.remove(k, ClientGone)
			return false
		}
		r.bytes = r.bytes[n:]
		if len(r.bytes) > 0 {
			if n > 0 || sent {
				s.patience(k)
			}
			return false
		}
		if len(r.more) == 0 {
			break
		}
		r.bytes, r.more = r.more[0], r.more[1:]
	}
	k.rest = nil
	k.schedule()
	if k.last {
		s.remove(k, k.reason)
		return false
	}
	k.account(r)
	return true
}

// patience gives the client of a socket with a rest the time that it may take nothing.
func (s *shard) patience(k *Socket) {
	k.rest.held = unset
	s.extend(k, s.writer.now())
}

// looks is how often the kernel is asked about a socket with a rest in the time that its
// client may take nothing. A client that has stopped is cut that much later at most.
const looks = 4

// look extends the patience with a socket if its client has taken something since the
// last look. The first look tells only what there is to take.
func (s *shard) look(k *Socket, now time.Duration) {
	before := k.rest.held
	k.rest.held = s.network.Held(k.fd)
	if k.rest.held > 0 && k.rest.held != before {
		s.extend(k, now)
		return
	}
	s.lookAgain(k, now)
}

func (s *shard) extend(k *Socket, now time.Duration) {
	k.cutAt = min(now+s.writer.opts.Timeout, k.group.cutAt)
	s.lookAgain(k, now)
}

func (s *shard) lookAgain(k *Socket, now time.Duration) {
	k.rest.lookAt = now + max(s.writer.opts.Timeout/looks, time.Millisecond)
	k.schedule()
}

// farewell begins to end a client that is between two events.
func (s *shard) farewell(k *Socket, reason Reason) {
	s.leaveGroup(k)
	k.ending, k.last, k.reason = true, true, reason
	var b, words []byte
	s.writer.call(func() { words = k.client.Farewell(reason) })
	if k.gzip != nil {
		words = k.gzip.End(words)
	}
	if len(words) > 0 {
		b = appendChunk(b, words)
	}
	k.rest = &rest{bytes: append(b, lastChunk...)}
	s.patience(k)
}

// leaveGroup makes a socket be served by itself.
func (s *shard) leaveGroup(k *Socket) {
	if k.place != behind {
		k.group.crowdOf(k).drop(k)
	}
}

// remove closes a socket.
func (s *shard) remove(k *Socket, reason Reason) {
	s.leaveGroup(k)
	k.rest, k.endAt = nil, never
	k.schedule()
	delete(k.group.behind, k)
	delete(s.sockets, k.fd)
	s.network.Shut(k.fd)
	k.tag = 0
	s.leave(k.group)
	s.writer.call(func() { k.client.Ended(reason, k.events, k.bytes) })
}

// gone reports whether the socket is closed.
func (k *Socket) gone() bool { return k.tag == 0 }
