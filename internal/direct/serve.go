package direct

import (
	"bytes"
	"slices"
	"time"
)

// portion is how many frames a socket that is behind gets before others have their
// turn.
const portion = 16

// serve gives a socket that is served by itself what it takes.
func (s *shard) serve(k *Socket) {
	for range portion {
		if k.rest != nil && !s.flush(k) {
			return
		}
		if !k.feed.supply(k) {
			return
		}
	}
	if !k.busy {
		k.busy = true
		s.busy = append(s.busy, k)
	}
}

// restOfParts returns a chunk with the parts as its data.
func restOfParts(parts [][]byte) *rest {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size > largeFrame {
		return &rest{bytes: appendChunkSize(nil, size), more: append(slices.Clone(parts), []byte(chunkEnd))}
	}
	return &rest{bytes: appendChunk(make([]byte, 0, size+16), bytes.Join(parts, nil))}
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
	k.feed.took(k, r)
	return true
}

// patience gives the client of a socket with a rest the time that it may take nothing.
func (s *shard) patience(k *Socket) {
	k.rest.uptake.Begin()
	s.extend(k, s.writer.now())
}

// look extends the patience with a socket if its client has taken something since the
// last look.
func (s *shard) look(k *Socket, now time.Duration) {
	if k.rest.uptake.Look(s.network.Held(k.fd)) {
		s.extend(k, now)
		return
	}
	s.lookAgain(k, now)
}

func (s *shard) extend(k *Socket, now time.Duration) {
	k.cutAt = min(now+s.writer.opts.Timeout, k.feed.cutsAt())
	s.lookAgain(k, now)
}

func (s *shard) lookAgain(k *Socket, now time.Duration) {
	k.rest.lookAt = now + LookEvery(s.writer.opts.Timeout)
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
		k.feed.(*group).crowdOf(k).drop(k)
	}
}

// remove closes a socket.
func (s *shard) remove(k *Socket, reason Reason) {
	s.leaveGroup(k)
	if r := k.rest; r != nil && r.done != nil {
		r.done <- errGone
	}
	k.rest, k.alarm = nil, never
	k.schedule()
	delete(s.sockets, k.fd)
	s.network.Shut(k.fd)
	k.tag = 0
	k.feed.forget(k)
	if k.gzip != nil {
		k.gzip.Close()
	}
	s.writer.call(func() { k.client.Ended(reason, k.events, k.bytes) })
}

// gone reports whether the socket is closed.
func (k *Socket) gone() bool { return k.tag == 0 }
