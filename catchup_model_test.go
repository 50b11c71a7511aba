package ssefanout

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// A chronicle is an origin that numbers its events, and gives each connection
// those after its last event id, or, if it ignores that, what comes from now on.
type chronicle struct {
	origin *fakeOrigin
	rng    *rand.Rand
	nature nature
	store  int // how many of the newest events a forgetful one has
	newest int
	asked  []*conn
	conns  []*feed

	calm    bool         // it is not out of service any more
	refused map[int]bool // ids whose successors it had no longer when it was asked
}

// A nature is what an origin makes of a last event id.
type nature string

const (
	honest    nature = "honest"
	deaf      nature = "deaf"      // it ignores it
	forgetful nature = "forgetful" // it has a bounded store, and answers 410, or is at times out of service
)

// A feed is a connection of a chronicle that is somewhere in it.
type feed struct {
	*conn
	at int
}

// listen keeps who has asked, and who has gone.
func (h *chronicle) listen() {
	for h.origin.asked() {
		h.asked = append(h.asked, h.origin.next())
	}
	var open []*feed
	for _, f := range h.conns {
		if !f.closed() {
			open = append(open, f)
		}
	}
	h.conns = open
}

// accept answers the next who has asked.
func (h *chronicle) accept() {
	if len(h.asked) == 0 {
		return
	}
	c := h.asked[0]
	h.asked = h.asked[1:]
	if c.closed() {
		return
	}
	at := h.newest
	if id, err := strconv.Atoi(c.request.Header.Get("Last-Event-ID")); err == nil && h.nature != deaf {
		at = id
	}
	if h.nature == forgetful {
		switch {
		case !h.calm && h.rng.IntN(8) == 0:
			c.answer(http.StatusServiceUnavailable).end()
			return
		case !h.has(at):
			h.refused[at] = true
			c.answer(http.StatusGone).end()
			return
		}
	}
	f := &feed{conn: c.accept(), at: at}
	if h.rng.IntN(2) == 0 {
		f.send("retry: 3000\n\n")
	}
	h.conns = append(h.conns, f)
}

// has reports whether everything after an event is in the store, which keeps what
// any connection has yet to get.
func (h *chronicle) has(id int) bool {
	from := h.newest - h.store
	for _, f := range h.conns {
		if !f.closed() {
			from = min(from, f.at)
		}
	}
	return id >= from
}

// send sends n of the events that a connection has not had.
func (h *chronicle) send(f *feed, n int) {
	if n = min(n, h.newest-f.at); n > 0 && !f.closed() {
		f.events(f.at+1, f.at+n)
		f.at += n
	}
}

// A reader follows the events of a chronicle, over as many connections as it takes.
type reader struct {
	*client
	began, last int // ids; negative: none
	gaps        int
	told        bool     // of a gap, behind which no event has come yet
	missed      bool     // events, and no gap was told since
	got         bool     // an event on this connection
	history     []string // all that has come, runs of events in short
}

func (r *reader) note(block string) {
	isEvent := func(block string) bool { return strings.Contains(block, "data: event ") }
	if n := len(r.history); n > 0 && isEvent(block) && isEvent(r.history[n-1]) {
		first, _, _ := strings.Cut(r.history[n-1], " to ")
		r.history[n-1] = first + " to " + block
		return
	}
	r.history = append(r.history, block)
}

func (r *reader) join(s *setup) {
	r.got = false
	if r.last < 0 {
		r.client = s.get("/events")
		return
	}
	r.client = s.get("/events", "Last-Event-ID", strconv.Itoa(r.last))
}

// lie is an id that one client may bring, and that is greater than all that the origin
// has ever given out: it sends nothing for it.
const lie = "999999"

// look checks what has come.
func (r *reader) look(t *testing.T, h *chronicle) {
	for block := range strings.SplitSeq(r.read(), "\n\n") {
		if block == "" {
			continue
		}
		r.note(block)
		if strings.Contains(block, lie) {
			t.Errorf("a client was told what another has brought: %q", r.history)
		}
		if strings.Contains(block, ": gap") {
			r.told, r.missed = true, false
			if !h.refused[r.last] {
				r.gaps++
			}
			if _, id, ok := strings.Cut(block, "id: "); ok && !r.got && h.nature == deaf {
				// Nobody knows its id: it may have been ahead of the others.
				_, _ = fmt.Sscan(id, &r.last)
			}
		}
		_, data, _ := strings.Cut(block, "data: event ")
		n, err := strconv.Atoi(data)
		switch {
		case err != nil:
			continue
		case r.last < 0:
		case n <= r.last:
			t.Errorf("event %d comes after %d: %q", n, r.last, r.history)
		case n != r.last+1 && !r.told:
			r.missed = true
		}
		r.last, r.told, r.got = n, false, true
	}
}

// Whatever the order in which an origin answers, sends, is silent, breaks off, and
// is asked, its clients get every event once, and are told of a gap only if it has
// ignored their id. One of them that lies harms nobody else.
func TestCatchupsInAnyOrder(t *testing.T) {
	for _, origin := range []nature{honest, deaf, forgetful} {
		for seed := range seeds(300) {
			t.Run(fmt.Sprintf("%s/%d", origin, seed), func(t *testing.T) {
				bothWriters(t, func(t *testing.T) { runChronicle(t, seed, origin) })
			})
		}
	}
}

func runChronicle(t *testing.T, seed uint64, origin nature) {
	rng := rand.New(rand.NewPCG(seed, 1))
	opts := Options{
		History:   History{Events: 1 + rng.IntN(30), Age: caddy.Duration(10 * time.Second)},
		Catchup:   Catchup{Connections: 1 + rng.IntN(2), Timeout: caddy.Duration(time.Hour)},
		Heartbeat: Heartbeat{Interval: -1},
	}
	s := newSetup(t, opts)
	h := &chronicle{origin: s.origin, rng: rng, nature: origin, newest: 5 + rng.IntN(50), refused: make(map[int]bool)}
	if origin == forgetful {
		h.store = 1 + rng.IntN(100)
	}
	var readers []*reader
	join := func() {
		r := &reader{last: 1 + rng.IntN(h.newest)}
		if origin == deaf && len(readers) == 0 {
			r.last = -1
		}
		r.began = r.last
		r.join(s)
		readers = append(readers, r)
	}
	comeBack := func() {
		for _, r := range readers {
			r.look(t, h)
			if r.ended() {
				r.join(s)
			}
		}
	}
	var liar *client
	lying := opts.Catchup.Connections > 1 && origin != deaf // a single connection waits for it
	if lying && rng.IntN(2) == 0 {
		liar = s.getFrom("203.0.113.66", "/events", "Last-Event-ID", lie)
	}
	join()
	if origin == deaf {
		// If nothing comes ahead of what all begin with, an origin is not to be
		// told from one that has had nothing to send for long.
		h.listen()
		h.accept()
		h.newest++
		h.send(h.conns[0], 1)
	}
	for range 60 {
		h.listen()
		choices := 15
		if origin == deaf {
			// Of what it has sent while it was not connected, or while a client was
			// away, nobody can know.
			choices = 11
		}
		switch rng.IntN(choices) {
		case 0, 1:
			h.newest += 1 + rng.IntN(3)
		case 2:
			h.newest += rng.IntN(60)
		case 3:
			time.Sleep(time.Duration(rng.Int64N(int64(8 * time.Second))))
		case 4:
			if len(readers) < 5 {
				join()
			}
			if lying && (liar == nil || liar.ended()) {
				liar = s.getFrom("203.0.113.66", "/events", "Last-Event-ID", lie)
			}
		case 5, 6:
			h.accept()
		case 11:
			if len(h.conns) > 0 && rng.IntN(2) == 0 {
				h.conns[rng.IntN(len(h.conns))].abort()
			}
		case 12:
			readers[rng.IntN(len(readers))].leave()
		case 13:
			comeBack()
		case 14:
			if rng.IntN(3) == 0 {
				old := s
				opts.Heartbeat.Interval-- // off, and another configuration
				s = old.reload(opts, s.origin)
				old.cleanup()
			}
		default:
			if len(h.conns) > 0 {
				h.send(h.conns[rng.IntN(len(h.conns))], 1+rng.IntN(40))
			}
		}
	}
	behind := func() (behind bool) {
		comeBack()
		for _, r := range readers {
			behind = behind || r.last < h.newest
		}
		return behind
	}
	h.calm = true
	for rounds := 0; behind() && rounds < 60 && !t.Failed(); rounds++ {
		h.listen()
		h.accept()
		for _, f := range h.conns {
			h.send(f, 100)
		}
		time.Sleep(time.Second)
		if origin != honest {
			h.newest++ // until then, those who were not heard have missed nothing
		}
	}
	behind()
	for i, r := range readers {
		if r.last < h.newest-1 {
			t.Errorf("client %d, which began after %d, is at %d, and the origin at %d: %q", i, r.began, r.last, h.newest, r.history)
		}
		if r.missed {
			t.Errorf("client %d, which began after %d, was never told of a gap: %q", i, r.began, r.history)
		}
		if r.gaps > 0 && origin != deaf {
			t.Errorf("client %d, which began after %d, was told of %d gaps that were none: %q", i, r.began, r.gaps, r.history)
		}
	}
}
