package multiplex

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/direct/directtest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

var seed = flag.Uint64("seed", 1, "what tests that draw at random begin with")

// A world is a site with topics in memory, and sockets in memory for its clients.
type world struct {
	t       *testing.T
	relay   *relay.Relay
	sockets directtest.Sockets
	writer  *direct.Writer
	stats   Stats
	torn    error // what a handover fails with

	mu      sync.Mutex
	origins map[string]*origin // guarded by mu
	panics  int                // guarded by mu
}

// An origin is that of one topic: a relay.Source in memory.
type origin struct {
	sent int

	mu   sync.Mutex
	sink relay.Sink // of the shared connection; guarded by mu
}

func (o *origin) Follow(ctx context.Context, _ relay.Resumption, sink relay.Sink) relay.Outcome {
	sink.Heard()
	if tell := sink.Accept(relay.Opening{Header: http.Header{"Content-Type": {"text/event-stream"}}}); tell != nil {
		tell()
	}
	if sink.Shared() {
		o.mu.Lock()
		o.sink = sink
		o.mu.Unlock()
	}
	<-ctx.Done()
	return relay.Outcome{Err: context.Cause(ctx)}
}

func (*origin) Abandoned() int   { return 0 }
func (*origin) Moved() bool      { return false }
func (*origin) LeftBehind() bool { return false }

// send sends n events, with the numbers of a stream as ids and data.
func (o *origin) send(n int, padding ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		o.sent++
		o.sink.Event(&sse.Event{HasID: true, ID: fmt.Append(nil, o.sent), HasData: true, Data: fmt.Append(nil, o.sent, strings.Join(padding, ""))})
	}
	o.sink.Flush()
}

// An observer is told of much, and keeps nothing.
type observer struct{}

func (observer) Connected(*relay.Topic, relay.Connected)   {}
func (observer) Lost(*relay.Topic, relay.Lost)             {}
func (observer) Closed(*relay.Topic, relay.Closed)         {}
func (observer) Stayed(*relay.Topic, *relay.Outcome)       {}
func (observer) Drained(*relay.Topic, *relay.Outcome)      {}
func (observer) Refused(*relay.Topic, *relay.Outcome)      {}
func (observer) Restricted(*relay.Topic, *relay.Outcome)   {}
func (observer) CaughtUp(*relay.Topic, relay.CaughtUp)     {}
func (observer) Dropped(uint64, int)                       {}
func (observer) Yielded(*relay.Topic)                      {}
func (observer) Left(*relay.Subscriber, relay.Left)        {}
func (observer) Delivered(time.Duration)                   {}
func (observer) Misfit(*relay.Topic, relay.Misfit, uint64) {}
func (observer) Retired()                                  {}

// newWorld returns a world, in which nothing must be left at the end of the test.
func newWorld(t *testing.T, change ...func(*relay.Config)) *world {
	words := audience.Words("", "")
	cfg := relay.Config{
		Heartbeat:      10 * time.Second,
		Words:          words[:],
		History:        hub.Limits{Events: 1000, Bytes: 4 << 20, Age: time.Hour},
		Catchups:       -1,
		CatchupTimeout: 10 * time.Second,
		BacklogBytes:   64 << 20,
		Linger:         time.Minute,
		LingerTopics:   100,
		Wait:           10 * time.Second,
		ReconnectMin:   500 * time.Millisecond,
		ReconnectMax:   30 * time.Second,
		MaxEventSize:   16 << 20,
		Limits:         quota.Limits{Topics: 10000},
	}
	for _, change := range change {
		change(&cfg)
	}
	w := &world{t: t, relay: relay.New(cfg, observer{}, new(relay.Stats)), origins: make(map[string]*origin)}
	w.writer = direct.NewWriter(direct.Options{Timeout: 10 * time.Second, Network: w.sockets.Open, Panicked: w.panicked})
	t.Cleanup(func() {
		w.relay.End(relay.Ending{Reason: relay.EndExiting})
		time.Sleep(time.Hour)
		w.writer.Close()
		w.writer.Wait()
		if left := w.relay.Holdings(); left.Topics+left.Subscribers+left.Detached+left.Closing+left.Addresses > 0 {
			t.Errorf("left behind: %+v", left)
		}
		if n := w.stats.Connections.Load() + w.stats.Shared() + w.stats.Private(); n != 0 {
			t.Errorf("%d connections and streams are still counted", n)
		}
		if w.panics > 0 {
			t.Errorf("%d panics", w.panics)
		}
	})
	return w
}

func (w *world) panicked(value any) {
	w.t.Logf("panic: %v", value)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.panics++
}

func (w *world) origin(target string) *origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.origins[target]
	if o == nil {
		o = new(origin)
		w.origins[target] = o
	}
	return o
}

// topic returns the topic of a target, or nil.
func (w *world) topic(target string) *relay.Topic {
	topics, _ := w.relay.Topics()
	for _, t := range topics {
		if t.Name() == target {
			return t
		}
	}
	return nil
}

// endSubscriber ends the first subscriber of a topic, as an administrator does.
func (w *world) endSubscriber(target string) {
	w.t.Helper()
	t := w.topic(target)
	t.Subscriber(t.SubscriberSnapshots()[0].Number).End()
}

// ask answers as a site does whose topics are all shared.
func (w *world) ask(a *Asking, answer http.ResponseWriter) {
	if strings.HasPrefix(a.Target, "/secret") {
		answer.WriteHeader(http.StatusForbidden)
		return
	}
	id, _ := a.Mark.ID()
	reader, rejected, err := w.relay.Join(&relay.Visit{
		Key:      a.Target,
		Name:     func() string { return a.Target },
		Open:     func(*relay.Topic) relay.Source { return w.origin(a.Target) },
		Claim:    relay.Claim{ID: id},
		Address:  "192.0.2.1",
		Audience: uint8(audience.Multiplexed),
	})
	if rejected != "" || err != nil {
		a.TurnAway(time.Second)
		return
	}
	if adm := reader.Admit(a.Context()); adm.Header == nil {
		reader.Close()
		a.TurnAway(time.Second)
		return
	}
	a.Take(reader)
	answer.Header()["Content-Type"] = []string{"text/event-stream"}
	answer.WriteHeader(http.StatusOK)
}

// A visitor is the client of a connection.
type visitor struct {
	w      *world
	conn   *Conn
	socket *directtest.Socket
	served chan relay.EndReason // why Serve has returned

	mu     sync.Mutex
	header http.Header
	body   bytes.Buffer    // what the HTTP server has written
	raw    []byte          // chunks that direct delivery has
	room   int             // how much it takes; negative: all
	ended  relay.EndReason // guarded by mu
}

func (v *visitor) Header() http.Header { return v.header }
func (v *visitor) WriteHeader(int)     {}
func (v *visitor) FlushError() error   { return nil }
func (v *visitor) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.body.Write(p)
}

func (v *visitor) receive(p []byte) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := len(p)
	if v.room >= 0 {
		n = min(n, v.room)
		v.room -= n
	}
	v.raw = append(v.raw, p[:n]...)
	return n
}

// take makes room for n bytes; negative: for all that comes.
func (v *visitor) take(n int) {
	v.mu.Lock()
	v.room = n
	v.mu.Unlock()
	v.socket.Room()
	synctest.Wait()
}

// visit opens a connection with streams whose aliases are the first letters of their targets.
func (w *world) visit(targets ...string) *visitor {
	w.t.Helper()
	v := &visitor{w: w, header: make(http.Header), room: -1, served: make(chan relay.EndReason, 1)}
	v.socket = w.sockets.New(v.receive)
	opts := &Options{
		Heartbeat:      15 * time.Second,
		HeartbeatWords: []byte(":\n"),
		Retry:          3 * time.Second,
		Spread:         time.Second,
		Ask:            w.ask,
		Base:           context.Background(),
		Admits:         func(http.Header) bool { return true },
		Adopt: func(s direct.Source) (*direct.Solo, error) {
			if w.torn != nil {
				return nil, w.torn
			}
			return w.writer.Adopt(int(v.socket.FD), s)
		},
		Kept:     func(error) {},
		Panicked: w.panicked,
		Stats:    &w.stats,
	}
	opts.Ended = func(reason relay.EndReason) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.ended != "" {
			w.t.Errorf("a connection has ended for %s, and again for %s", v.ended, reason)
		}
		v.ended = reason
	}
	for _, target := range targets {
		opts.Streams = append(opts.Streams, Stream{Alias: target[1:2], Target: target})
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/streams", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	gone := make(chan struct{})
	service := carrier.Service{Timeout: 10 * time.Second, Sockets: carrier.Kernel{}}
	v.conn = New(opts, service.NewOutput(v, r))
	go func() {
		reason, _ := v.conn.Serve(gone)
		v.served <- reason
	}()
	w.t.Cleanup(func() {
		v.socket.HangUp()
		close(gone)
		<-v.conn.Done()
	})
	synctest.Wait()
	return v
}

// isCarried reports whether a shard reads the streams.
func (v *visitor) isCarried() bool {
	synctest.Wait()
	v.conn.mu.Lock()
	defer v.conn.mu.Unlock()
	return v.conn.solo.Load() != nil && !v.conn.attended
}

func (v *visitor) expectCarried(want bool) {
	v.w.t.Helper()
	if got := v.isCarried(); got != want {
		v.w.t.Errorf("a shard reads the streams: %t, want %t", got, want)
	}
}

// text returns all that has come.
func (v *visitor) text() (text string, whole bool) {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	text = v.body.String()
	for raw := v.raw; len(raw) > 0; {
		size, after, ok := bytes.Cut(raw, []byte("\r\n"))
		var n int
		if _, err := fmt.Sscanf(string(size), "%x", &n); !ok || err != nil || len(after) < n+2 {
			break
		}
		whole = n == 0
		text += string(after[:n])
		raw = after[n+2:]
	}
	return text, whole
}

// events returns the events that have come, each as its type, its data and, if it has set one,
// its id. Streams begin in any order: those that tell of that first are sorted.
func (v *visitor) events() (all []string) {
	text, _ := v.text()
	for block := range strings.SplitSeq(text, "\n\n") {
		var typ, id, data string
		for line := range strings.SplitSeq(block, "\n") {
			switch name, value, _ := strings.Cut(line, ": "); name {
			case "event":
				typ = value
			case "id":
				id = " " + value
			case "data":
				data += " " + value
			}
		}
		if typ != "" {
			all = append(all, typ+data+id)
		}
	}
	begun := slices.IndexFunc(all, func(e string) bool { return strings.Contains(e, "/message") })
	if begun < 0 {
		begun = len(all)
	}
	slices.Sort(all[:begun])
	return all
}

func (v *visitor) expect(want ...string) {
	v.w.t.Helper()
	if got := v.events(); !slices.Equal(got, want) {
		v.w.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (v *visitor) expectEnded(reason relay.EndReason, whole bool) {
	v.w.t.Helper()
	text, got := v.text()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended != reason || got != whole {
		v.w.t.Errorf("ended for %q, to the end %t; want %q, %t", v.ended, got, reason, whole)
	}
	if whole && !strings.HasSuffix(text, "\n\n") {
		v.w.t.Errorf("the last words are %q", text[max(0, len(text)-40):])
	}
}

// A connection whose streams are in step is served by a shard, which brings the events of
// each, under its alias, with the positions of all.
func TestAShardReadsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.visit("/a", "/b", "/secret")
		if reason := <-v.served; reason != "" {
			t.Fatalf("the handler has returned for %q", reason)
		}
		v.expectCarried(true)
		w.origin("/a").send(2)
		synctest.Wait()
		w.origin("/b").send(1)
		v.expect("a/open {}", "b/open {}", `s/error {"status":403}`, "a/message 1 a:1", "a/message 2 a:2", "b/message 1 a:2,b:1")
		other := w.visit("/b", "/c")
		other.expectCarried(true)
		w.origin("/b").send(1, strings.Repeat("x", 100<<10))
		w.origin("/a").send(1)
		synctest.Wait()
		if got := other.events(); len(got) != 3 || !strings.HasPrefix(got[2], "b/message 2xxx") {
			t.Errorf("got %.100q, want the large event", got)
		}
		if got := v.events(); len(got) != 8 {
			t.Errorf("got %d events, want 8", len(got))
		}
		if n := w.stats.Shared(); n != 4 {
			t.Errorf("%d shared streams are counted, want 4", n)
		}
		if s := v.conn.Snapshot(); s.Streams[0].State != "shared" || s.Streams[0].Events != 3 || s.Streams[2].State != "over" {
			t.Errorf("it is seen as %+v", s)
		}
	})
}

// A connection that cannot be handed over is served as it was.
func TestAConnectionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.torn = errors.New("no descriptor is free")
		v := w.visit("/a")
		v.expectCarried(false)
		w.origin("/a").send(1)
		v.expect("a/open {}", "a/message 1 a:1")
		v.conn.End(relay.Ending{Reason: relay.EndDeleted})
		if reason := <-v.served; reason != relay.EndDeleted {
			t.Errorf("ended for %q", reason)
		}
	})
}

// A stream that an administrator ends is asked for again. Nothing is lost meanwhile, neither
// of this stream nor of the others, and a shard reads all of them in the end.
func TestAStreamOfACarriedConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.visit("/a", "/b")
		v.expectCarried(true)
		w.origin("/a").send(1)
		synctest.Wait()
		w.endSubscriber("/a")
		v.expectCarried(false)
		w.origin("/a").send(1)
		w.origin("/b").send(1)
		synctest.Wait()
		time.Sleep(5 * time.Second)
		v.expectCarried(true)
		w.origin("/b").send(1)
		synctest.Wait()
		w.origin("/a").send(1)
		v.expect("a/open {}", "b/open {}", "a/message 1 a:1", `a/end {"retry":3000}`, "b/message 1 a:1,b:1",
			"a/open {} a:1,b:1", "a/message 2 a:2,b:1", "b/message 2 a:2,b:2", "a/message 3 a:3,b:2")
	})
}

// When one of its topics ends, the streams of that end over its time, each at a random moment,
// and no others do.
func TestATopicOfCarriedConnectionsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []*visitor
		for range 20 {
			all = append(all, w.visit("/a", "/b"))
		}
		w.origin("/a").send(3)
		synctest.Wait()
		w.topic("/a").Conclude(relay.Ending{Reason: relay.EndDrained, Over: 10 * time.Second})
		ended := func() (n int) {
			for _, v := range all {
				if text, _ := v.text(); strings.Contains(text, "a/end") {
					n++
				}
			}
			return n
		}
		time.Sleep(5 * time.Second)
		if n := ended(); n < 3 || n > 17 {
			t.Errorf("%d of 20 have ended after half of the time", n)
		}
		w.origin("/b").send(1)
		time.Sleep(5*time.Second + time.Millisecond)
		if n := ended(); n != 20 {
			t.Errorf("%d of 20 have ended after all of the time", n)
		}
		time.Sleep(10 * time.Second)
		w.origin("/b").send(1)
		w.origin("/a").send(1)
		for _, v := range all {
			v.expectCarried(true)
			text, _ := v.text()
			if n := strings.Count(text, "a/message"); n != 4 {
				t.Errorf("a client got %d events of the topic that has ended, want 4", n)
			}
			if n := strings.Count(text, "b/message"); n != 2 || strings.Contains(text, "b/end") {
				t.Errorf("a client got %d events of the other topic, want 2 and no end", n)
			}
		}
	})
}

// A client that does not read holds one portion, and nobody else up. A stream whose log has
// passed it ends, and comes back with a gap.
func TestACarriedClientIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *relay.Config) { cfg.History.Bytes = 64 << 10 })
		slow, quick := w.visit("/a", "/b"), w.visit("/a", "/b")
		slow.take(100)
		for range 30 {
			w.origin("/a").send(10, strings.Repeat("x", 1000))
			synctest.Wait()
		}
		w.origin("/b").send(1)
		if got := len(quick.events()); got != 303 {
			t.Errorf("the other client has %d events, want 303", got)
		}
		slow.expectCarried(true)
		time.Sleep(5 * time.Second)
		slow.take(-1)
		time.Sleep(4 * time.Second)
		w.origin("/a").send(1)
		got := slow.events()
		i := max(0, slices.IndexFunc(got, func(e string) bool { return strings.HasPrefix(e, "a/end") }))
		want := []string{`a/end {"retry":3000}`, "a/open {} a:300,b:1", "a/gap {}", "a/message 301 a:301,b:1"}
		if !slices.Equal(got[i:], want) || !strings.HasPrefix(got[i-1], "b/message 1 a:") {
			t.Errorf("what follows %s is %s", got[i-1], got[i:])
		}
		slow.expectCarried(true)
	})
}

// A client that takes nothing of what is to be sent is cut, whether a shard writes to it or a
// goroutine.
func TestACarriedClientIsStalled(t *testing.T) {
	for _, attended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			v := w.visit("/a")
			if attended {
				v.take(0)
				w.endSubscriber("/a") // its end cannot be written
			} else {
				v.take(5)
				w.origin("/a").send(1)
			}
			time.Sleep(9 * time.Second)
			v.mu.Lock()
			early := v.ended
			v.mu.Unlock()
			if early != "" {
				t.Errorf("ended early, for %s", early)
			}
			time.Sleep(4 * time.Second)
			v.expectEnded(relay.EndStalled, false)
		})
	}
}

// However a connection ends, its client is told when to come back, it ends once, and nothing
// is left of it.
func TestACarriedConnectionEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(*visitor)
		after  time.Duration
		reason relay.EndReason
		whole  bool
	}{
		"deleted": {func(v *visitor) { v.conn.End(relay.Ending{Reason: relay.EndDeleted}) }, 0, relay.EndDeleted, true},
		"drained": {func(v *visitor) {
			v.conn.End(relay.Ending{Reason: relay.EndDrained, Over: 10 * time.Second})
		}, 10 * time.Second, relay.EndDrained, true},
		"exiting": {func(v *visitor) { v.conn.End(relay.Ending{Reason: relay.EndExiting}) }, 0, relay.EndExiting, true},
		"exiting, and does not read": {func(v *visitor) {
			v.take(3)
			v.w.origin("/a").send(1)
			v.conn.End(relay.Ending{Reason: relay.EndExiting})
		}, carrier.ExitGrace, relay.EndStalled, false},
		"exiting topics": {func(v *visitor) { v.w.relay.End(relay.Ending{Reason: relay.EndExiting}) }, 0, relay.EndExiting, true},
		"timeout":        {func(*visitor) {}, time.Hour, relay.EndTimeout, true},
		"gone":           {func(v *visitor) { v.socket.HangUp() }, 0, relay.EndClientGone, false},
		"gone while a stream is asked for": {func(v *visitor) {
			v.w.endSubscriber("/a")
			synctest.Wait()
			v.socket.HangUp()
		}, 0, relay.EndClientGone, false},
		"deleted while a stream is asked for": {func(v *visitor) {
			v.w.endSubscriber("/a")
			synctest.Wait()
			v.conn.End(relay.Ending{Reason: relay.EndDeleted})
		}, 0, relay.EndDeleted, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(cfg *relay.Config) { cfg.StreamTimeout = time.Hour })
				v := w.visit("/a", "/b", "/secret")
				v.expectCarried(true)
				tc.end(v)
				time.Sleep(tc.after)
				v.expectEnded(tc.reason, tc.whole)
				if text, _ := v.text(); tc.whole && !strings.Contains(text[len(text)-14:], "retry: ") {
					t.Errorf("the last words are %q", text[len(text)-40:])
				}
				select {
				case <-v.conn.Done():
				default:
					t.Error("it is not done")
				}
			})
		})
	}
}

// One heartbeat serves all streams, comes only when nothing else does, and is no topic's.
func TestACarriedConnectionHasOneHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.visit("/a", "/b", "/c")
		beats := func() int {
			text, _ := v.text()
			return strings.Count("\n"+strings.ReplaceAll(text, "\n", "\n\n"), "\n:\n")
		}
		for range 6 {
			time.Sleep(14 * time.Second)
			w.origin("/b").send(1)
		}
		if n := beats(); n != 0 {
			t.Errorf("%d heartbeats while there were events", n)
		}
		time.Sleep(46 * time.Second)
		if n := beats(); n != 3 {
			t.Errorf("%d heartbeats in 46 s, want 3", n)
		}
	})
}

// A busy stream does not keep the others from being sent.
func TestStreamsOfACarriedConnectionTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.visit("/a", "/b")
		v.take(0)
		w.origin("/a").send(1)
		synctest.Wait()
		for range 500 {
			w.origin("/a").send(1, strings.Repeat("x", 500))
		}
		w.origin("/b").send(5)
		synctest.Wait()
		v.take(40 << 10)
		if text, _ := v.text(); strings.Count(text, "b/message") != 5 {
			t.Error("a stream has waited for all that there is of another one")
		}
	})
}

// Whatever happens, each client gets every event of each of its streams once and in order,
// unless it is told of a gap.
func TestCarriedConnectionsGetEverythingInAnyOrder(t *testing.T) {
	for i := range uint64(40) {
		t.Run(fmt.Sprintf("seed=%d", *seed+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testInAnyOrder(t, rand.New(rand.NewPCG(*seed+i, 14))) })
		})
	}
}

func testInAnyOrder(t *testing.T, r *rand.Rand) {
	w := newWorld(t, func(cfg *relay.Config) {
		if r.IntN(2) == 0 {
			cfg.History.Bytes = 8 << 10 // clients lag
		}
	})
	targets := []string{"/a", "/b", "/c", "/d"}
	all := []*visitor{w.visit(targets...)}
	for range 150 {
		v, target := all[r.IntN(len(all))], targets[r.IntN(len(targets))]
		switch r.IntN(12) {
		case 0, 1, 2, 3:
			w.origin(target).send(1+r.IntN(5), strings.Repeat("x", r.IntN(700)))
		case 4:
			if r.IntN(8) == 0 {
				w.origin(target).send(1, strings.Repeat("x", 40<<10))
			}
		case 5:
			if len(all) < 6 {
				all = append(all, w.visit(targets[:1+r.IntN(len(targets))]...))
			}
		case 6:
			v.take(r.IntN(3000))
		case 7, 8:
			v.take(-1)
		case 9:
			if topic := w.topic(target); topic != nil {
				if s := topic.SubscriberSnapshots(); len(s) > 0 {
					topic.Subscriber(s[r.IntN(len(s))].Number).End()
				}
			}
		case 10:
			if r.IntN(10) == 0 {
				v.socket.HangUp()
			}
		case 11:
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
		}
	}
	for _, v := range all {
		v.take(-1)
	}
	time.Sleep(2 * maxRest)
	for _, target := range targets {
		w.origin(target).send(1)
	}
	for _, v := range all {
		v.check()
	}
}

// check checks that no event is missing, nor comes twice.
func (v *visitor) check() {
	v.w.t.Helper()
	last, gap := make(map[string]int), make(map[string]bool)
	for _, e := range v.events() {
		typ, data, _ := strings.Cut(e, " ")
		alias, typ, _ := strings.Cut(typ, "/")
		switch typ {
		case "gap":
			gap[alias] = true
		case "message":
			n := 0
			for _, c := range data {
				if c < '0' || c > '9' {
					break
				}
				n = 10*n + int(c-'0')
			}
			if before, began := last[alias]; began && n != before+1 && (!gap[alias] || n <= before) {
				v.w.t.Errorf("event %d of %s comes after %d", n, alias, before)
			}
			last[alias], gap[alias] = n, false
		}
	}
	v.mu.Lock()
	ended := v.ended
	v.mu.Unlock()
	if ended != "" {
		return
	}
	v.expectCarried(true)
	for _, m := range v.conn.members {
		if sent := v.w.origin(m.stream.Target).sent; last[m.stream.Alias] != sent {
			v.w.t.Errorf("the last event of %s is %d, want %d", m.stream.Alias, last[m.stream.Alias], sent)
		}
	}
}
