package direct_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A source reads logs for one client, and marks what it gets with the log that it is of.
type source struct {
	*client
	solo *direct.Solo

	logs    []*hub.Log
	cursors []hub.Cursor
	unread  uint64
	share   bool          // events are not copied
	atOnce  int           // events of a portion at most; 0: a batch
	beat    time.Duration // 0: never

	asked, taken int
	spoken       time.Time
	pauseAt      hub.Cursor // of the first log; 0: never
	paused       chan struct{}
	end          direct.Reason
	panics       bool
}

func (s *source) Next(b []byte, news uint64, now time.Time) (p direct.Portion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.panics {
		panic("a source panics")
	}
	if s.end != "" {
		return direct.Portion{End: s.end}
	}
	s.unread |= news
	for i, log := range s.logs {
		if s.unread&(1<<i) == 0 {
			continue
		}
		if s.pauseAt > 0 && s.cursors[0] >= s.pauseAt {
			close(s.paused)
			return direct.Portion{Pause: true}
		}
		batch := log.Look(s.cursors[i])
		if batch.Lagged {
			return direct.Portion{End: direct.Slow}
		}
		if len(batch.Bytes) == 0 {
			s.unread &^= 1 << i
			continue
		}
		if s.atOnce > 0 {
			batch = log.LookUntil(s.cursors[i], s.cursors[i]+hub.Cursor(s.atOnce))
		}
		s.cursors[i] = batch.Next
		s.spoken = now
		b = fmt.Appendf(b, "%d:", i)
		p = direct.Portion{Bytes: append(b, batch.Bytes...), More: true}
		if s.share {
			p.Bytes, p.Shared = b, batch.Bytes
		}
		break
	}
	if s.beat > 0 {
		if p.Bytes == nil && now.Sub(s.spoken) >= s.beat {
			s.spoken = now
			p.Bytes = append(b, ":\n\n"...)
		}
		p.At = s.spoken.Add(s.beat)
	}
	if p.Bytes == nil {
		p.Bytes = b
	}
	return p
}

// counted returns how often it was asked, and how many portions were taken.
func (s *source) counted() (asked, taken int) {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.taken
}

func (s *source) Taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
}

// adopt hands over a client that reads logs from cursors on.
func (h *house) adopt(s *source, logs []*hub.Log, at ...hub.Cursor) *source {
	return h.adoptOver(s, nil, logs, at...)
}

func (h *house) adoptOver(s *source, k *buffered, logs []*hub.Log, at ...hub.Cursor) *source {
	h.t.Helper()
	s.client = &client{t: h.t, room: -1}
	s.logs, s.cursors = logs, at
	s.spoken = time.Now()
	take := s.receive
	if k != nil {
		take = func(p []byte) int { return k.take(p, s.receive) }
	}
	s.socket = h.sockets.New(take)
	if k != nil {
		s.socket.Held = k.inBuffer
		k.room = s.socket.Room
	}
	var err error
	if s.solo, err = h.writer.Adopt(int(s.socket.FD), s); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		s.socket.HangUp()
		<-s.socket.Closed
	})
	synctest.Wait()
	return s
}

func (s *source) follow() *source {
	s.solo.Follow(s.logs)
	synctest.Wait()
	return s
}

// together publishes events that are seen at once.
func (s *stream) together(from, to int) {
	for n := from; n <= to; n++ {
		s.log.Append(hub.Entry{Wire: []byte(event(n)), ID: fmt.Sprint(n), SetsID: true})
	}
	s.log.Wake()
	synctest.Wait()
}

func logsOf(streams ...*stream) (logs []*hub.Log) {
	for _, s := range streams {
		logs = append(logs, s.log)
	}
	return logs
}

// A client gets what was in its logs when it came, and what comes after, of each in order.
func TestASoloGetsAllOfItsLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, other := newHouse(t), newStream(roomy), newStream(roomy), newStream(roomy)
		a.publish(0, 4)
		c := h.adopt(new(source), logsOf(a, b), 3, 0).follow()
		c.expect("0:" + events(3, 4))
		b.together(0, 1)
		c.expect("0:" + events(3, 4) + "1:" + events(0, 1))
		asked, _ := c.counted()
		other.publish(0, 9)
		if more, _ := c.counted(); more != asked {
			t.Errorf("it was asked %d times for the news of a log that it does not follow", more-asked)
		}
		a.publish(5, 5)
		c.expect("0:" + events(3, 4) + "1:" + events(0, 1) + "0:" + event(5))
		if _, taken := c.counted(); taken != 3 {
			t.Errorf("told of %d portions that were taken, want 3", taken)
		}
	})
}

// One log may be followed twice, and by clients that share it with groups.
func TestSolosAndGroupsShareLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b := newHouse(t), newStream(roomy), newStream(roomy)
		twice := h.adopt(new(source), logsOf(a, a), 0, 0).follow()
		both := h.adopt(new(source), logsOf(b, a), 0, 0).follow()
		single := h.join(a, 0)
		a.publish(0, 0)
		twice.expect("0:" + event(0) + "1:" + event(0))
		both.expect("1:" + event(0))
		single.expect(event(0))
		twice.socket.HangUp()
		synctest.Wait()
		a.publish(1, 1)
		both.expect("1:" + event(0) + "1:" + event(1))
		single.expect(events(0, 1))
		both.socket.HangUp()
		<-both.socket.Closed
		synctest.Wait()
		asked, _ := both.counted()
		a.publish(2, 2)
		b.publish(0, 0)
		if more, _ := both.counted(); more != asked {
			t.Error("a client that is gone was asked for more")
		}
	})
}

// A client that takes only a part gets the rest when it has room, is not asked meanwhile, and
// delays nobody.
func TestASoloThatIsBehindGetsAllInTheEnd(t *testing.T) {
	for _, share := range []bool{false, true} {
		t.Run(fmt.Sprintf("share=%t", share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, a, b := newHouse(t), newStream(roomy), newStream(roomy)
				slow := h.adopt(&source{share: share}, logsOf(a, b), 0, 0).follow()
				quick := h.adopt(new(source), logsOf(a, b), 0, 0).follow()
				slow.take(5)
				a.publish(0, 0)
				synctest.Wait()
				asked, taken := slow.counted()
				b.together(0, 2)
				a.together(1, 3)
				quick.expect("0:" + event(0) + "1:" + events(0, 2) + "0:" + events(1, 3))
				if more, took := slow.counted(); more != asked || took != taken {
					t.Error("a client was given more than it takes")
				}
				slow.take(-1)
				slow.expect("0:" + event(0) + "0:" + events(1, 3) + "1:" + events(0, 2))
				if _, taken := slow.counted(); taken != 3 {
					t.Errorf("told of %d portions that were taken, want 3", taken)
				}
			})
		})
	}
}

// A client that takes nothing is cut, and one that takes a little now and then is not.
func TestASoloThatTakesNothingIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a := newHouse(t), newStream(roomy)
		k := &buffered{size: 100}
		c := h.adoptOver(new(source), k, logsOf(a), 0).follow()
		a.publish(0, 99)
		for range 10 {
			time.Sleep(8 * time.Second)
			k.read(5)
			c.expectServed()
		}
		time.Sleep(13 * time.Second)
		c.expectEnded(direct.Stalled, false)
	})
}

// A client whose log has passed it ends as its source says, between two events.
func TestASoloEndsAsItsSourceSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b := newHouse(t), newStream(hub.Limits{Events: 1, Bytes: 100, Age: time.Hour}), newStream(roomy)
		c := h.adopt(new(source), logsOf(b, a), 0, 0)
		c.farewell = "bye\n\n"
		c.follow().take(3)
		a.together(0, 0)
		a.together(1, 20)
		c.expectServed()
		c.take(-1)
		c.expect("1:" + event(0) + "bye\n\n")
		c.expectEnded(direct.Slow, true)
	})
}

// A client ends at once, whoever writes to it, and gets its farewell.
func TestASoloIsEnded(t *testing.T) {
	for _, following := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h, a := newHouse(t), newStream(roomy)
			c := h.adopt(new(source), logsOf(a), 0)
			c.farewell = "bye\n\n"
			if following {
				c.follow()
			}
			c.solo.End("deleted")
			c.expect("bye\n\n")
			c.expectEnded("deleted", true)
			if err := c.solo.Write([]byte("late")); err == nil {
				t.Error("a client that has ended was written to")
			}
			c.solo.Follow(c.logs)
			c.solo.End("again")
			a.publish(0, 0)
			c.expectEnded("deleted", true)
			time.Sleep(time.Minute) // its shard has ended
			if err := c.solo.Write([]byte("late")); err == nil {
				t.Error("a client that has ended was written to")
			}
		})
	}
}

// When the time to ask again has come, a source is asked, once, and however often it has put
// that off.
func TestASoloIsAskedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a := newHouse(t), newStream(roomy)
		c := h.adopt(&source{beat: 10 * time.Second}, logsOf(a), 0).follow()
		for n := range 5 {
			time.Sleep(9 * time.Second)
			a.publish(n, n)
		}
		synctest.Wait()
		want := ""
		for n := range 5 {
			want += "0:" + event(n)
		}
		c.expect(want)
		asked, _ := c.counted()
		time.Sleep(25 * time.Second)
		c.expect(want + ":\n\n:\n\n")
		if now, _ := c.counted(); now-asked > 3 {
			t.Errorf("it was asked %d times in 25 s", now-asked)
		}
	})
}

// Whoever writes to a client that is not followed waits for it, in order, and comes to know
// that it has gone.
func TestWritingToASolo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a := newHouse(t), newStream(roomy)
		c := h.adopt(new(source), logsOf(a), 0)
		a.publish(0, 0)
		if err := c.solo.Write([]byte("one "), nil, []byte("two ")); err != nil {
			t.Error(err)
		}
		large := []byte(strings.Repeat("x", 100<<10))
		if err := c.solo.Write([]byte("three "), large, []byte(" four ")); err != nil {
			t.Error(err)
		}
		c.expect("one two three " + string(large) + " four ")
		c.take(2)
		written := make(chan error, 1)
		go func() { written <- c.solo.Write([]byte("five")) }()
		synctest.Wait()
		if len(written) > 0 {
			t.Error("a write has returned before its bytes were taken")
		}
		c.take(-1)
		if err := <-written; err != nil {
			t.Error(err)
		}
		c.follow()
		c.expect("one two three " + string(large) + " four five0:" + event(0))
		if _, taken := c.counted(); taken != 1 {
			t.Errorf("told of %d portions, want one", taken)
		}
	})
}

func TestAWriteEndsWithItsClient(t *testing.T) {
	ends := map[string]func(*source) direct.Reason{
		"gone":    func(c *source) direct.Reason { c.socket.HangUp(); return direct.ClientGone },
		"stalled": func(*source) direct.Reason { time.Sleep(13 * time.Second); return direct.Stalled },
		"hurried": func(c *source) direct.Reason {
			c.solo.Bound(time.Second)
			time.Sleep(time.Second)
			return direct.Stalled
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				c := h.adopt(new(source), nil)
				c.take(0)
				written := make(chan error, 1)
				go func() { written <- c.solo.Write([]byte("one")) }()
				synctest.Wait()
				reason := end(c)
				synctest.Wait()
				select {
				case err := <-written:
					if err == nil {
						t.Error("a write has succeeded that nobody has taken")
					}
				default:
					t.Error("a write goes on though its client is gone")
				}
				c.expectEnded(reason, false)
			})
		})
	}
}

// A pause ends the following, and the shard goes on where it was told to.
func TestASoloPausesAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, third := newHouse(t), newStream(roomy), newStream(roomy), newStream(roomy)
		c := h.adopt(&source{pauseAt: 2, paused: make(chan struct{})}, logsOf(a, b), 0, 0).follow()
		a.publish(0, 0)
		synctest.Wait()
		a.publish(1, 1)
		<-c.paused
		b.publish(0, 0)
		third.publish(0, 0)
		a.publish(2, 2)
		synctest.Wait()
		asked, _ := c.counted()
		c.solo.Wake()
		if more, _ := c.counted(); more != asked {
			t.Error("a client that is not followed was asked for")
		}
		if err := c.solo.Write([]byte("pause ")); err != nil {
			t.Error(err)
		}
		c.pauseAt = 0
		c.logs, c.cursors, c.unread = logsOf(third, a), []hub.Cursor{0, 2}, 0
		c.follow()
		c.expect("0:" + event(0) + "0:" + event(1) + "pause 0:" + event(0) + "1:" + event(2))
		b.publish(1, 1)
		a.publish(3, 3)
		c.expect("0:" + event(0) + "0:" + event(1) + "pause 0:" + event(0) + "1:" + event(2) + "1:" + event(3))
	})
}

// A source that panics ends its own client, and nobody else's.
func TestASoloWhoseSourcePanicsIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a := newHouse(t), newStream(roomy)
		bad := h.adopt(&source{panics: true}, logsOf(a), 0).follow()
		good := h.adopt(new(source), logsOf(a), 0).follow()
		bad.expectEnded(direct.ClientGone, false)
		a.publish(0, 0)
		good.expect("0:" + event(0))
		if len(h.panics) != 1 {
			t.Errorf("%d panics, want one", len(h.panics))
		}
	})
}

// A shard ends when its last client has gone, and does not listen any more.
func TestAShardOfSolosEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a := newHouse(t), newStream(roomy)
		c := h.adopt(new(source), logsOf(a), 0).follow()
		c.socket.Break()
		a.publish(0, 0)
		c.expectEnded(direct.ClientGone, false)
		if err := c.solo.Write([]byte("late")); err == nil {
			t.Error("a client that is gone was written to")
		}
		time.Sleep(time.Minute)
		if err := c.solo.Write([]byte("late")); err == nil {
			t.Error("a client that is gone was written to")
		}
		again := h.adopt(new(source), logsOf(a), 0).follow()
		again.expect("0:" + event(0))
	})
}

// Whatever clients do, each gets every event of each of its logs once and in order, up to
// its end at least.
func TestSolosGetEverythingOnceInAnyOrder(t *testing.T) {
	for i := range uint64(50) {
		t.Run(fmt.Sprintf("seed=%d", *seed+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSolosInAnyOrder(t, rand.New(rand.NewPCG(*seed+i, 14))) })
		})
	}
}

func testSolosInAnyOrder(t *testing.T, r *rand.Rand) {
	h := newHouse(t)
	var logs []*hub.Log
	for range 1 + r.IntN(4) {
		logs = append(logs, hub.New(roomy))
	}
	published := make([]int, len(logs))
	var clients []*source
	for range 300 {
		switch i := r.IntN(len(logs)); r.IntN(8) {
		case 0, 1, 2:
			for range 1 + r.IntN(5) {
				logs[i].Append(hub.Entry{Wire: fmt.Appendf(nil, "data: %d.%d\n\n", i, published[i])})
				published[i]++
			}
			logs[i].Wake()
		case 3:
			c := &source{share: r.IntN(3) == 0, atOnce: r.IntN(3)}
			clients = append(clients, h.adopt(c, logs, make([]hub.Cursor, len(logs))...).follow())
		case 4, 5:
			if len(clients) > 0 {
				clients[r.IntN(len(clients))].take(r.IntN(300) - 1)
			}
		case 6:
			if len(clients) > 0 && r.IntN(10) == 0 {
				clients[r.IntN(len(clients))].socket.HangUp()
			}
		case 7:
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		}
	}
	synctest.Wait()
	for _, c := range clients {
		c.mu.Lock()
		ended := c.ended > 0
		c.mu.Unlock()
		if !ended {
			c.take(-1)
		}
		c.check(published, ended)
	}
}

// check compares what a client has got with how many events were published in each log.
func (s *source) check(published []int, ended bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _, _ := dechunk(s.raw)
	got := make([]int, len(published))
	for event := range strings.SplitSeq(body, "\n\n") {
		_, name, ok := strings.Cut(event, "data: ")
		if !ok {
			continue
		}
		var log, n int
		if _, err := fmt.Sscanf(name, "%d.%d", &log, &n); err != nil || n != got[log] {
			s.t.Errorf("got %q, want event %d of that log", event, got[log])
			return
		}
		got[log]++
	}
	if !ended && !slices.Equal(got, published) {
		s.t.Errorf("got %d events of the logs, want %d", got, published)
	}
}
