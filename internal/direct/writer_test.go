package direct_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct/directtest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A stream is a log, and what the writer tells of it.
type stream struct {
	log *hub.Log

	mu     sync.Mutex
	ending *direct.Ending

	delivered, bytes, beaten int
}

func newStream(limits hub.Limits) *stream { return &stream{log: hub.New(limits)} }

var roomy = hub.Limits{Events: 10000, Bytes: 1 << 30, Age: time.Hour}

func (s *stream) Ending() (e direct.Ending, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending == nil {
		return e, false
	}
	return *s.ending, true
}

func (s *stream) Delivered(clients int, d direct.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered += clients * d.Events
	s.bytes += clients * d.Bytes
}

func (s *stream) Heartbeat() []byte { return []byte(":\n\n") }

func (s *stream) Gap() []byte { return []byte(": gap\n\n") }

func (s *stream) Beaten(clients int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beaten += clients
}

func (s *stream) end(e direct.Ending) {
	s.mu.Lock()
	s.ending = &e
	s.mu.Unlock()
	s.log.Wake()
}

func event(n int) string { return fmt.Sprintf("id: %d\ndata: event %d\n\n", n, n) }

func (s *stream) publish(from, to int) {
	for n := from; n <= to; n++ {
		s.log.Publish(hub.Entry{Wire: []byte(event(n)), ID: fmt.Sprint(n), SetsID: true})
	}
}

func events(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(event(n))
	}
	return b.String()
}

// A client is the far end of a socket in memory.
type client struct {
	t      *testing.T
	socket *directtest.Socket
	taken  *direct.Socket

	slow time.Duration // how long each send takes

	mu       sync.Mutex
	sends    []time.Time
	room     int // how much it takes; negative: all
	raw      []byte
	reason   direct.Reason
	events   uint64
	bytes    uint64
	ended    int
	farewell string
}

func (c *client) Farewell(direct.Reason) []byte { return []byte(c.farewell) }

func (c *client) Ended(reason direct.Reason, events, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason, c.events, c.bytes = reason, events, bytes
	c.ended++
}

func (c *client) receive(p []byte) int {
	start := time.Now()
	time.Sleep(c.slow)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends = append(c.sends, start)
	n := len(p)
	if c.room >= 0 {
		n = min(n, c.room)
		c.room -= n
	}
	c.raw = append(c.raw, p[:n]...)
	return n
}

// buffered is the buffer of a kernel in front of a client.
type buffered struct {
	size int
	room func()

	mu      sync.Mutex
	held    int
	refused bool
}

func (b *buffered) take(p []byte, receive func([]byte) int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(p), b.size-b.held)
	b.refused = n < len(p)
	b.held += n
	return receive(p[:n])
}

func (b *buffered) inBuffer() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// read reads n bytes, and returns what is left. As the kernel does, it says that there
// is room once a third of the buffer is free.
func (b *buffered) read(n int) (left int) {
	synctest.Wait()
	b.mu.Lock()
	b.held -= min(n, b.held)
	left = b.held
	wake := b.refused && b.size-b.held >= b.size/3
	if wake {
		b.refused = false
	}
	b.mu.Unlock()
	if wake {
		b.room()
	}
	return left
}

// take makes room for n bytes; negative: for all that comes.
func (c *client) take(n int) {
	c.mu.Lock()
	c.room = n
	c.mu.Unlock()
	c.socket.Room()
	synctest.Wait()
}

// body decodes what has come so far, which must end between two chunks.
func (c *client) body() (body string, whole bool) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	body, whole, rest := dechunk(c.raw)
	if rest != "" {
		c.t.Errorf("what has come ends inside a chunk: %q", rest)
	}
	return body, whole
}

// dechunk decodes chunks, and returns what follows the last that is complete.
func dechunk(raw []byte) (body string, whole bool, rest string) {
	var b strings.Builder
	for len(raw) > 0 {
		size, after, ok := bytes.Cut(raw, []byte("\r\n"))
		var n int
		if _, err := fmt.Sscanf(string(size), "%x", &n); !ok || err != nil || len(after) < n+2 || whole {
			break
		}
		whole = n == 0
		b.Write(after[:n])
		raw = after[n+2:]
	}
	return b.String(), whole, string(raw)
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got, _ := c.body(); got != want {
		c.t.Errorf("the client got %.200q, want %.200q", got, want)
	}
}

func (c *client) expectEnded(reason direct.Reason, whole bool) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, got, _ := dechunk(c.raw)
	if c.ended != 1 || c.reason != reason || got != whole {
		c.t.Errorf("ended %d times, for %q, to the end %t; want once, for %q, %t", c.ended, c.reason, got, reason, whole)
	}
}

func (c *client) expectServed() {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != 0 {
		c.t.Errorf("a client was ended for %q", c.reason)
	}
}

// A house is a writer and its sockets.
type house struct {
	t       *testing.T
	sockets directtest.Sockets
	writer  *direct.Writer
	panics  []any
}

func newHouse(t *testing.T) *house {
	h := &house{t: t}
	h.writer = direct.NewWriter(direct.Options{
		Timeout:  10 * time.Second,
		Network:  h.sockets.Open,
		Panicked: func(value any) { h.panics = append(h.panics, value) },
	})
	t.Cleanup(func() {
		h.writer.Close()
		h.writer.Wait()
	})
	return h
}

// join hands a client over that is at a cursor, and takes all.
func (h *house) join(s *stream, at hub.Cursor) *client {
	return h.joinWith(s, direct.Handover{Cursor: at})
}

func (h *house) joinWith(s *stream, over direct.Handover) *client {
	return h.joinOver(s, over, nil)
}

// joinOver is joinWith for a client whose socket has a buffer; nil: it has none.
func (h *house) joinOver(s *stream, over direct.Handover, k *buffered) *client {
	h.t.Helper()
	c := &client{t: h.t, room: -1}
	take := c.receive
	if k != nil {
		take = func(p []byte) int { return k.take(p, c.receive) }
	}
	c.socket = h.sockets.New(take)
	if k != nil {
		c.socket.Held = k.inBuffer
		k.room = c.socket.Room
	}
	over.FD, over.Client, over.Stream, over.Log = int(c.socket.FD), c, s, s.log
	var err error
	if c.taken, err = h.writer.Take(&over); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		c.socket.HangUp()
		<-c.socket.Closed
	})
	synctest.Wait()
	return c
}

func TestAllGetWhatIsPublishedFromTheirCursorOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		s.publish(0, 4)
		early, late := h.join(s, 1), h.join(s, 5)
		early.expect(events(1, 4)) // published while nobody listened
		other := newStream(roomy)
		stranger := h.join(other, 0)
		s.publish(5, 7)
		early.expect(events(1, 7))
		late.expect(events(5, 7))
		stranger.expect("")
		if s.delivered != 10 || s.bytes != len(events(1, 7)+events(5, 7)) {
			t.Errorf("told of %d events and %d bytes, want 10 and %d", s.delivered, s.bytes, len(events(1, 7)+events(5, 7)))
		}
		for _, c := range []*client{early, late} {
			if _, _, at := c.taken.Progress(); at != 8 {
				t.Errorf("a client is at %d, want 8", at)
			}
		}
	})
}

// What is published together is one chunk for everybody.
func TestABatchIsOneSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		c := h.join(s, 0)
		for n := range 10 {
			s.log.Append(hub.Entry{Wire: []byte(event(n))})
		}
		s.log.Wake()
		c.expect(events(0, 9))
		if got := bytes.Count(c.raw, []byte("\r\n")); got != 2 {
			t.Errorf("ten events came in %d chunks", got/2)
		}
	})
}

// After a turn that has taken long, others have the processor for as long.
func TestShardsRest(t *testing.T) {
	for _, tc := range []struct{ send, next time.Duration }{
		{time.Millisecond, time.Millisecond},
		{5 * time.Millisecond, 10 * time.Millisecond},
		{time.Second, time.Second + 20*time.Millisecond},
	} {
		t.Run(tc.send.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				s := newStream(roomy)
				c := h.join(s, 0)
				synctest.Wait()
				c.slow = tc.send
				s.publish(1, 1)
				time.Sleep(tc.send / 2)
				s.publish(2, 2)
				s.publish(3, 3)
				time.Sleep(3 * tc.send)
				c.expect(events(1, 3))
				if len(c.sends) != 2 {
					t.Fatalf("%d sends, want 2", len(c.sends))
				}
				if got := c.sends[1].Sub(c.sends[0]); got != tc.next {
					t.Errorf("the next send begins after %s, want %s", got, tc.next)
				}
			})
		})
	}
}

func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		c, full := h.join(s, 0), h.join(s, 0)
		s.log.Beat()
		c.expect(":\n\n")
		full.expect(":\n\n")
		full.take(0)
		s.publish(0, 0)
		synctest.Wait()
		s.log.Beat()
		c.expect(":\n\n" + event(0) + ":\n\n")
		full.take(-1)
		full.expect(":\n\n" + event(0)) // the event was life enough
		if s.beaten != 3 {
			t.Errorf("told of %d heartbeats, want 3", s.beaten)
		}
	})
}

// fragile panics when it is told anything.
type fragile struct{}

func (fragile) Farewell(direct.Reason) []byte       { panic("farewell") }
func (fragile) Ended(direct.Reason, uint64, uint64) { panic("ended") }

// What one client does wrong is no matter to the others, nor to the process.
func TestPanicOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		c := h.join(s, 0)
		k := h.sockets.New(func(p []byte) int { return len(p) })
		socket, err := h.writer.Take(&direct.Handover{FD: int(k.FD), Client: fragile{}, Stream: s, Log: s.log})
		if err != nil {
			t.Fatal(err)
		}
		socket.End("deleted")
		<-k.Closed
		s.publish(0, 0)
		c.expect(event(0))
		if want := []any{"farewell", "ended"}; !slices.Equal(h.panics, want) {
			t.Errorf("told of the panics %v, want %v", h.panics, want)
		}
	})
}

// A gap in the log is told in the words of the stream, also to who is behind.
func TestGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		c, full := h.join(s, 0), h.join(s, 0)
		full.take(0)
		s.publish(0, 1)
		s.log.Publish(hub.Entry{Gap: true})
		s.publish(2, 2)
		want := event(0) + event(1) + ": gap\n\n" + event(2)
		c.expect(want)
		full.take(-1)
		full.expect(want)
		if s.delivered != 8 || s.bytes != 2*len(want) {
			t.Errorf("told of %d events and %d bytes, want 8 and %d", s.delivered, s.bytes, 2*len(want))
		}
	})
}

var seed = flag.Uint64("seed", 1, "what tests that draw at random begin with")

// A socket that takes a part of a frame gets the rest when it has room, and joins
// the others when it has caught up; nobody waits for it.
func TestPartialSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Logf("seed %d", *seed)
		r := rand.New(rand.NewPCG(*seed, 2))
		h, s := newHouse(t), newStream(roomy)
		quick, slow := h.join(s, 0), h.join(s, 0)
		published := 0
		for range 300 {
			slow.take(r.IntN(60))
			n := r.IntN(4)
			s.publish(published, published+n-1)
			published += n
			quick.expect(events(0, published-1))
			got, _, _ := dechunk(slow.raw)
			if !strings.HasPrefix(events(0, published), got) {
				t.Fatalf("the slow client got %q", got)
			}
			n2, _, at := slow.taken.Progress()
			if int(n2) != strings.Count(got, "\n\n") || int(at) != int(n2) {
				t.Fatalf("said to have %d events and to be at %d, has %d", n2, at, strings.Count(got, "\n\n"))
			}
		}
		slow.take(-1)
		slow.expect(events(0, published-1))
		s.publish(published, published)
		slow.expect(events(0, published))
		if s.delivered != 2*(published+1) {
			t.Errorf("told of %d events, want %d", s.delivered, 2*(published+1))
		}
	})
}

func TestAClientThatTakesNothingIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		stalled, creeping, quick := h.join(s, 0), h.join(s, 0), h.join(s, 0)
		stalled.take(3)
		creeping.take(3)
		s.publish(0, 0)
		for range 5 {
			time.Sleep(9 * time.Second)
			creeping.take(3)
		}
		stalled.expectEnded(direct.Stalled, false)
		creeping.expectServed()
		quick.expect(event(0))
		if stalled.events != 0 {
			t.Errorf("counted %d events of a client that has taken none to its end", stalled.events)
		}
	})
}

// The kernel wakes a writer only when much of its buffer is free. Until then, what it
// holds says whether the client reads.
func TestAClientThatReadsSlowlyIsNotEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		k := &buffered{size: 3000}
		c := h.joinOver(s, direct.Handover{}, k)
		large := event(0) + "data: " + strings.Repeat("x", 10000) + "\n\n"
		s.log.Publish(hub.Entry{Wire: []byte(large)})
		for k.read(7) > 0 {
			time.Sleep(9900 * time.Millisecond)
		}
		c.expectServed()
		if got, _ := c.body(); got != large {
			t.Errorf("got %d bytes, want %d", len(got), len(large))
		}
	})
}

func TestAClientThatStopsReadingIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		k := &buffered{size: 3000}
		c := h.joinOver(s, direct.Handover{}, k)
		s.log.Publish(hub.Entry{Wire: []byte(strings.Repeat("x", 10000))})
		for range 10 {
			synctest.Wait()
			k.read(7)
			time.Sleep(9 * time.Second)
		}
		c.expectServed()
		k.read(7)
		time.Sleep(9900 * time.Millisecond)
		c.expectServed()
		time.Sleep(2600 * time.Millisecond)
		c.expectEnded(direct.Stalled, false)
	})
}

func TestAClientThatTheLogHasPassedIsEndedBetweenTwoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s := newStream(hub.Limits{Events: 10, Bytes: 500, Age: time.Hour})
		slow, quick := h.join(s, 0), h.join(s, 0)
		slow.take(5)
		for n := range 100 {
			s.publish(n, n)
			synctest.Wait()
		}
		slow.take(-1)
		slow.expectEnded(direct.Slow, true)
		slow.expect(event(0))
		quick.expect(events(0, 99))
	})
}

func TestHangUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		idle, full, broken := h.join(s, 0), h.join(s, 0), h.join(s, 0)
		quick := h.join(s, 0)
		idle.socket.HangUp()
		idle.expectEnded(direct.ClientGone, false)
		full.take(2)
		broken.socket.Break()
		s.publish(0, 0)
		broken.expectEnded(direct.ClientGone, false)
		full.socket.HangUp()
		full.expectEnded(direct.ClientGone, false)
		s.publish(1, 1)
		quick.expect(events(0, 1))
	})
}

// An event of a socket that is gone must not hit another that has its number.
func TestNumbersAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		for range 20 {
			first := h.join(s, 0)
			fd := first.socket.FD
			go first.socket.HangUp()
			first.socket.HangUp()
			<-first.socket.Closed
			second := h.join(s, 0)
			if second.socket.FD != fd {
				t.Fatal("the number was not used again")
			}
			second.expectServed()
			second.socket.HangUp()
			<-second.socket.Closed
		}
	})
}

func TestEndings(t *testing.T) {
	const why = direct.Reason("a reason")
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		var clients []*client
		for range 100 {
			c := h.join(s, 0)
			c.farewell = "bye\n\n"
			clients = append(clients, c)
		}
		full := h.join(s, 0)
		full.farewell = "bye\n\n"
		full.take(4)
		s.publish(0, 0)
		s.end(direct.Ending{Reason: why, Over: 8 * time.Second})
		synctest.Wait()
		time.Sleep(4 * time.Second)
		over := 0
		for _, c := range clients {
			c.mu.Lock()
			over += c.ended
			c.mu.Unlock()
		}
		if over < 25 || over > 75 {
			t.Errorf("%d of 100 have ended after half of the time", over)
		}
		s.publish(1, 1) // those who are still there get it
		time.Sleep(4 * time.Second)
		for _, c := range clients {
			c.expectEnded(why, true)
			if got, _ := c.body(); got != event(0)+"bye\n\n" && got != events(0, 1)+"bye\n\n" {
				t.Errorf("a client got %q", got)
			}
		}
		full.expectServed() // in the middle of an event
		full.take(-1)
		full.expectEnded(why, true)
		full.expect(event(0) + "bye\n\n")

		late := h.join(s, 2)
		time.Sleep(8 * time.Second)
		late.expectEnded(why, true)
	})
}

func TestEndingAfterWhatTheLogHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		quick, slow := h.join(s, 0), h.join(s, 0)
		slow.take(1)
		s.publish(0, 9)
		synctest.Wait()
		for n := 10; n < 20; n++ {
			s.log.Append(hub.Entry{Wire: []byte(event(n))})
		}
		s.end(direct.Ending{Reason: "over", Drain: true})
		quick.expectEnded("over", true)
		quick.expect(events(0, 19))
		slow.expectServed()
		slow.take(-1)
		slow.expectEnded("over", true)
		slow.expect(events(0, 19))
	})
}

// Whoever does not read, or only slowly, must not be what an exit waits for.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		quick, stalled, tight := h.join(s, 0), h.join(s, 0), h.join(s, 0)
		reading := &buffered{size: 10}
		slow := h.joinOver(s, direct.Handover{}, reading)
		tight.farewell = "bye\n\n"
		stalled.take(1)
		s.publish(0, 0)
		tight.take(0) // it is full just when it is to be told
		s.end(direct.Ending{Reason: "exit", Grace: 500 * time.Millisecond})
		quick.expectEnded("exit", true)
		stalled.expectServed()
		time.Sleep(400 * time.Millisecond)
		reading.read(1)
		slow.expectServed()
		time.Sleep(100 * time.Millisecond)
		slow.expectEnded(direct.Stalled, false)
		stalled.expectEnded(direct.Stalled, false)
		tight.expectEnded(direct.Stalled, false)
	})
}

func TestOneClientIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		timed := h.joinWith(s, direct.Handover{EndAt: time.Now().Add(time.Minute), EndReason: "its time"})
		asked, other := h.join(s, 0), h.join(s, 0)
		asked.taken.End("asked")
		asked.expectEnded("asked", true)
		asked.taken.End("asked again")
		time.Sleep(time.Minute)
		timed.expectEnded("its time", true)
		s.publish(0, 0)
		other.expect(event(0))
	})
}

func TestTakingOverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		w := direct.NewWriter(direct.Options{Network: func() (direct.Network, error) { return nil, refused }})
		s := newStream(roomy)
		over := direct.Handover{FD: 3, Client: &client{t: t}, Stream: s, Log: s.log}
		if _, err := w.Take(&over); !errors.Is(err, refused) {
			t.Errorf("without a network: got %v", err)
		}
		h := newHouse(t)
		if _, err := h.writer.Take(&over); err == nil {
			t.Error("a socket was taken over that cannot be watched")
		}
		c := h.join(s, 0) // the failure is nobody else's
		s.publish(0, 0)
		c.expect(event(0))
		w.Close()
		if _, err := w.Take(&over); err == nil {
			t.Error("a closed writer has taken a socket over")
		}
	})
}

// Opening a network takes system calls: nobody else waits for them.
func TestOpeningANetworkHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		h.writer = direct.NewWriter(direct.Options{Network: func() (direct.Network, error) {
			h.writer.Close() // takes the writer's lock
			return h.sockets.Open()
		}})
		c := h.join(s, 0)
		s.publish(0, 0)
		c.expect(event(0))
		c.socket.HangUp()
		h.writer.Wait()
	})
}

// A client that reads slowly for as long as the stream lasts holds its own frame,
// and nothing grows.
func TestManyRandomClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Logf("seed %d", *seed)
		r := rand.New(rand.NewPCG(*seed, 4))
		h, s := newHouse(t), newStream(roomy)
		type member struct {
			*client
			from int
		}
		var members []member
		published := 0
		for range 1000 {
			switch r.IntN(6) {
			case 0:
				members = append(members, member{h.join(s, hub.Cursor(published)), published})
			case 1:
				if len(members) > 0 {
					i := r.IntN(len(members))
					members[i].socket.HangUp()
					<-members[i].socket.Closed
					members = append(members[:i], members[i+1:]...)
				}
			case 2, 3:
				n := r.IntN(20)
				s.publish(published, published+n-1)
				published += n
			default:
				if len(members) > 0 {
					members[r.IntN(len(members))].take(r.IntN(500) - 50)
				}
			}
		}
		for _, m := range members {
			m.take(-1)
			m.expect(events(m.from, published-1))
		}
	})
}

// A socket that has its turn again, and hears in the same moment that it has room,
// may have caught up by then.
func TestRoomComesInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newHouse(t), newStream(roomy)
		slow, quick := h.join(s, 0), h.join(s, 0)
		slow.take(0)
		large := func(n int) string { return fmt.Sprintf("id: %d\ndata: %s\n\n", n, strings.Repeat("x", 40<<10)) }
		want := ""
		publish := func(from, to int) {
			for n := from; n < to; n++ {
				s.log.Publish(hub.Entry{Wire: []byte(large(n))})
				want += large(n)
				synctest.Wait()
			}
		}
		for round := range 10 {
			slow.take(0)
			publish(100*round, 100*round+16+round%8)
			slow.mu.Lock()
			slow.room = 40<<10*15 + 100*round // a rest is left when its turn is over
			slow.mu.Unlock()
			slow.socket.Room()
			slow.mu.Lock()
			slow.room = -1
			slow.mu.Unlock()
			slow.socket.Room()
			slow.socket.Room()
			slow.expect(want)
			quick.expect(want)
			if t.Failed() {
				return
			}
		}
	})
}

// A writer that has nobody left holds on to nothing.
func TestShardsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		h, s := newHouse(t), newStream(roomy)
		h.writer = direct.NewWriter(direct.Options{Timeout: time.Second, Network: func() (direct.Network, error) {
			opened++
			return h.sockets.Open()
		}})
		first := h.join(s, 0)
		time.Sleep(time.Minute)
		first.expectServed()
		first.socket.HangUp()
		<-first.socket.Closed
		time.Sleep(4 * time.Second)
		for range 64 { // all shards
			second := h.join(s, 0)
			second.socket.HangUp()
			<-second.socket.Closed
		}
		before := opened
		time.Sleep(time.Minute)
		h.writer.Wait() // though it was not closed
		third := h.join(s, 0)
		s.publish(0, 0)
		third.expect(event(0))
		if opened != before+1 {
			t.Errorf("%d networks were opened after %d had been closed, want 1", opened-before, before)
		}
		third.socket.HangUp()
		h.writer.Close()
		h.writer.Wait()
	})
}
