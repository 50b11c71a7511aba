package direct_test

import (
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// compressedStream returns a stream and its rendition.
func compressedStream() (*stream, *gzip.Rendition, *gzip.Budget) {
	s, budget := newStream(roomy), gzip.NewBudget(1)
	settings := gzip.Settings{Level: gzip.DefaultLevel, Budget: budget}
	return s, gzip.NewRendition(s.log, settings, s.Heartbeat(), s.Gap()), budget
}

// joinGzip hands a client over that gets gzip, as soon as it is at a cursor.
func (h *house) joinGzip(s *stream, r *gzip.Rendition, at hub.Cursor) *client {
	h.t.Helper()
	z, ok := r.Join()
	if !ok {
		h.t.Fatal("no compressor is to be had")
	}
	return h.joinWith(s, direct.Handover{Cursor: at, Gzip: z})
}

// sent returns how many bytes a client has been sent.
func (c *client) sent() int {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.raw)
}

// decoded returns what a client reads but for heartbeats. If its stream has ended, it is whole.
func (c *client) decoded() string {
	c.t.Helper()
	body, whole := c.body()
	want := io.ErrUnexpectedEOF
	if whole {
		want = nil
	}
	z, err := stdgzip.NewReader(strings.NewReader(gzip.Header + body))
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if !errors.Is(err, want) {
		c.t.Errorf("reading ends with %v, want %v", err, want)
	}
	return strings.ReplaceAll(string(text), ":\n\n", "")
}

// Clients that wait for a restart point get each event with one send, as a stored block, until
// they are in step.
func TestWaitingForARestartPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s, r, budget := compressedStream()
		first := h.joinGzip(s, r, 0)
		n := 0
		publish := func() string {
			event := fmt.Sprintf("id: %d\ndata: %s\n\n", n, strings.Repeat("all that comes ", 60))
			s.log.Publish(hub.Entry{Wire: []byte(event)})
			n++
			synctest.Wait()
			return event
		}
		want := publish()
		var late []*client
		for range 64 { // on each shard
			late = append(late, h.joinGzip(s, r, 1))
		}
		wantLate := ""
		for range 30 {
			wantLate += publish()
		}
		if got := first.decoded(); got != want+wantLate {
			t.Errorf("the first client read %d bytes, want %d", len(got), len(want+wantLate))
		}
		for _, c := range late {
			if got := c.decoded(); got != wantLate {
				t.Fatalf("a client read %d bytes, want %d", len(got), len(wantLate))
			}
			if n := len(c.sends); n != 30 {
				t.Errorf("%d sends for 30 events", n)
			}
			if n := c.sent(); n < 1<<10 || n > 5<<10 {
				t.Errorf("%d bytes were sent for %d, want those of 1 KiB as they are", n, len(wantLate))
			}
		}
		s.end(direct.Ending{Reason: "drained", Drain: true})
		for _, c := range append(late, first) {
			c.expectEnded("drained", true)
			c.decoded()
		}
		if n := budget.InUse(); n != 0 {
			t.Errorf("%d compressors are left", n)
		}
	})
}

// Of those that wait, some get in step and others do not, as they have come too late for that
// restart point. All get each event at once.
func TestComingTooLateForARestartPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s, r, _ := compressedStream()
		random := rand.New(rand.NewPCG(1, 0))
		type member struct {
			*client
			from int
		}
		members := []member{{h.joinGzip(s, r, 0), 0}}
		var published []string
		for n := range 100 {
			wire := fmt.Sprintf("id: %d\ndata: %x %x\n\n", n, random.Uint64(), random.Uint64())
			published = append(published, wire)
			s.log.Publish(hub.Entry{Wire: []byte(wire)})
			for _, m := range members {
				m.sent()
				if got, want := m.decoded(), strings.Join(published[m.from:], ""); got != want {
					t.Fatalf("after event %d, a client that has come at %d read %d bytes, want %d", n, m.from, len(got), len(want))
				}
			}
			if n%9 == 0 {
				s.log.Beat()
			}
			members = append(members, member{h.joinGzip(s, r, hub.Cursor(n+1)), n + 1})
			synctest.Wait()
		}
		if n := members[10].sent(); n > 5_500 {
			t.Errorf("a client was sent %d bytes for 90 events of 45", n)
		}
	})
}

// A client that waits has had a heartbeat that the rendition does not have, as those in step did
// not read then.
func TestHeartbeatOfThoseThatWaitAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s, r, _ := compressedStream()
		random := rand.New(rand.NewPCG(1, 0))
		n := 0
		publish := func(events int) {
			for range events {
				s.log.Publish(hub.Entry{Wire: fmt.Appendf(nil, "id: %d\ndata: %x %x\n\n", n, random.Uint64(), random.Uint64())})
				n++
			}
			synctest.Wait()
		}
		first := h.joinGzip(s, r, 0)
		publish(10)
		first.take(0)
		publish(1)
		late := h.joinGzip(s, r, 11)
		publish(50)
		s.log.Beat()
		synctest.Wait()
		publish(3)
		first.take(-1)
		synctest.Wait()
		for range 30 {
			publish(1)
		}
		text := first.decoded()
		if got := late.decoded(); got != text[strings.Index(text, "id: 11\n"):] {
			t.Error("they read different events")
		}
		if s.beaten == 0 {
			t.Error("nobody has had a heartbeat")
		}
	})
}

// A client gets each heartbeat, in step or not; one before it gets in step perhaps twice.
func TestHeartbeatsOfThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s, r, _ := compressedStream()
		first := h.joinGzip(s, r, 0)
		s.publish(0, 0)
		synctest.Wait()
		late := h.joinGzip(s, r, 1)
		beats := 0
		beat := func() {
			for range 5 {
				time.Sleep(5 * time.Second)
				s.log.Beat()
				beats++
				synctest.Wait()
			}
		}
		beat()
		last := 300
		for n := 1; n <= last; n += 20 {
			s.publish(n, min(n+19, last))
			synctest.Wait()
		}
		beat()
		if n := late.sent(); n >= len(events(1, last)) {
			t.Errorf("%d bytes were sent for %d", n, len(events(1, last)))
		}
		if got := first.decoded() + late.decoded(); got != events(0, last)+events(1, last) {
			t.Errorf("they read %q", got)
		}
		if s.beaten != 2*beats && s.beaten != 2*beats+1 {
			t.Errorf("%d heartbeats were counted, want %d or one more", s.beaten, 2*beats)
		}
		got, bytes, cursor := late.taken.Progress()
		if got != uint64(last) || bytes != uint64(len(events(1, last))) || cursor != hub.Cursor(last+1) {
			t.Errorf("a client has %d events of %d bytes and is at %d", got, bytes, cursor)
		}
	})
}

// A large event is held once, however many wait and do not read.
func TestLargeEventForThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s, r, _ := compressedStream()
		first := h.joinGzip(s, r, 0)
		s.publish(0, 0)
		synctest.Wait()
		var late []*client
		for range 40 {
			c := h.joinGzip(s, r, 1)
			c.take(100)
			late = append(late, c)
		}
		const size = 4 << 20
		wire := []byte("data: " + strings.Repeat("large ", size/6) + "\n\n")
		s.log.Publish(hub.Entry{Wire: wire})
		synctest.Wait()
		var held runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&held)
		if held.HeapAlloc > 10*size {
			t.Errorf("%d bytes are held for an event of %d", held.HeapAlloc, size)
		}
		for _, c := range late {
			c.take(-1)
			if got := c.decoded(); got != string(wire) {
				t.Fatalf("a client read %d bytes, want %d", len(got), len(wire))
			}
		}
		if got := first.decoded(); got != event(0)+string(wire) {
			t.Errorf("the first client read %d bytes", len(got))
		}
	})
}

func TestManyRandomCompressedClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Logf("seed %d", *seed)
		random := rand.New(rand.NewPCG(*seed, 5))
		h := newHouse(t)
		s, r, budget := compressedStream()
		type member struct {
			*client
			from int
		}
		var members []member
		var published []string
		wants := func(m member) string { return strings.Join(published[m.from:], "") }
		publish := func(size int) {
			wire := event(len(published)) + fmt.Sprintf("data: %s\n\n", strings.Repeat(fmt.Sprintf("%x ", random.Uint32()), size/9))
			published = append(published, wire)
			s.log.Publish(hub.Entry{Wire: []byte(wire)})
		}
		for range 2000 {
			switch random.IntN(12) {
			case 0, 1:
				members = append(members, member{h.joinGzip(s, r, hub.Cursor(len(published))), len(published)})
			case 2:
				if len(members) == 0 {
					continue
				}
				i := random.IntN(len(members))
				m := members[i]
				if random.IntN(2) == 0 {
					m.socket.HangUp()
				} else {
					m.taken.End("enough")
					m.take(-1)
					m.expectEnded("enough", true)
					if got := m.decoded(); !strings.HasPrefix(wants(m), got) {
						t.Errorf("a client that was ended read %d bytes that are not a part of %d", len(got), len(wants(m)))
					}
				}
				<-m.socket.Closed
				members = append(members[:i], members[i+1:]...)
			case 3:
				published = append(published, ": gap\n\n")
				s.log.Append(hub.Entry{Gap: true})
				s.log.Wake()
			case 4:
				s.log.Beat()
			case 5:
				time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
			case 6:
				publish(random.IntN(100_000))
			case 7, 8, 9:
				for range random.IntN(10) {
					publish(random.IntN(2000))
				}
			default:
				if len(members) > 0 {
					members[random.IntN(len(members))].take(random.IntN(3000) - 300)
				}
			}
			for i := 0; i < len(members); i++ {
				m := members[i]
				m.mu.Lock()
				ended := m.ended > 0
				m.mu.Unlock()
				if ended { // it has not read for too long
					members = append(members[:i], members[i+1:]...)
					i--
				}
			}
		}
		for _, m := range members {
			m.take(-1)
		}
		s.end(direct.Ending{Reason: "drained", Drain: true})
		for _, m := range members {
			m.expectEnded("drained", true)
			if got := m.decoded(); got != wants(m) {
				t.Errorf("a client read %d bytes, want %d", len(got), len(wants(m)))
			}
		}
		if n := budget.InUse(); n != 0 {
			t.Errorf("%d compressors are left", n)
		}
	})
}
