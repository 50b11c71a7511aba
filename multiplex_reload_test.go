package ssefanout

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// A resumingOrigin keeps all its events, and sends those behind the id of a client.
type resumingOrigin struct {
	*httptest.Server

	mu sync.Mutex

	// Guarded by mu.
	last int
	wake chan struct{} // closed when there are more
}

func newResumingOrigin(t *testing.T) *resumingOrigin {
	o := &resumingOrigin{wake: make(chan struct{})}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *resumingOrigin) addr() string { return o.Listener.Addr().String() }

func (o *resumingOrigin) publish(last int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = last
	close(o.wake)
	o.wake = make(chan struct{})
}

func (o *resumingOrigin) state() (last int, wake chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, o.wake
}

func (o *resumingOrigin) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	last, wake := o.state()
	sent, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	if err != nil {
		sent = last
	}
	for {
		_, _ = io.WriteString(w, numbered(sent+1, last))
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		}
		sent = last
		last, wake = o.state()
	}
}

// Where a reload changes the handler, its connections end over a while, each client is told
// another time to come back, and misses nothing.
func TestMultiplexReloadOfTheHandlerLosesNothing(t *testing.T) {
	origin := newLiveOrigin(t)
	s := newSite(t)
	config := func(heartbeat string) {
		s.load(fmt.Sprintf(`
		handle /streams* {
			sse_multiplex {
				heartbeat %s
				retry 2s
				stream_close_delay 300ms
			}
		}
		handle {
			sse_fanout %s
		}`, heartbeat, origin.addr))
	}
	config("15s")
	const n = 12
	var clients []*muxClient
	for range n {
		clients = append(clients, s.multiplexed("a=/a&b=/b"))
	}
	for _, c := range clients {
		c.expectAll("a/open {}", "b/open {}")
	}
	origin.send(numbered(1, 1))
	for _, c := range clients {
		c.expectAll("a/message event 1", "b/message event 1") // now they have positions
	}
	config("16s")
	origin.send(numbered(2, 6))
	var delays []int
	for i, c := range clients {
		last := map[string]int{"a/message": 1, "b/message": 1}
		follow := func(e muxEvent) {
			t.Helper()
			if last[e.typ]++; e.data != fmt.Sprint("event ", last[e.typ]) {
				t.Fatalf("client %d got %v, want event %d", i, e, last[e.typ])
			}
		}
		for _, e := range c.rest() {
			follow(e)
		}
		delay, err := strconv.Atoi(c.retry[len(c.retry)-1])
		if err != nil || delay < 2000 || delay > 2300 {
			t.Errorf("client %d is told to come back after %s ms, want 2,000 to 2,300", i, c.retry)
		}
		delays = append(delays, delay)
		back := s.multiplexed("a=/a&b=/b", "Last-Event-ID", c.last)
		for last["a/message"] < 6 || last["b/message"] < 6 {
			follow(back.next("a/message", "b/message"))
		}
		back.cancel()
	}
	slices.Sort(delays)
	if len(slices.Compact(slices.Clone(delays))) < n/2 {
		t.Errorf("clients come back after %v ms", delays)
	}
}

// Where a reload changes the handler of one topic, only that stream is asked for again, and
// what it has missed comes from the origin.
func TestMultiplexReloadOfATopicsHandlerLosesNothing(t *testing.T) {
	for name, forms := range map[string][2]string{
		"another handler":      {"sse_fanout %s {\nname one\nstream_close_delay 10ms\n}", "sse_fanout %s {\nname two\nstream_close_delay 10ms\n}"},
		"another form":         {"sse_fanout %s {\nstream_close_delay 10ms\n}", "sse_fanout {\nstream_close_delay 10ms\n}\nreverse_proxy %s"},
		"it is not shared now": {"sse_fanout %s {\nstream_close_delay 10ms\n}", "reverse_proxy %s"},
	} {
		t.Run(name, func(t *testing.T) {
			origin, steady := newResumingOrigin(t), newLiveOrigin(t)
			s := newSite(t)
			config := func(handler string) {
				s.load(fmt.Sprintf(`
				handle /streams* {
					sse_multiplex {
						retry 1s
					}
				}
				handle /changed {
					%s
				}
				handle {
					sse_fanout %s
				}`, fmt.Sprintf(handler, origin.addr()), steady.addr))
			}
			config(forms[0])
			c := s.multiplexed("c=/changed&s=/steady")
			c.expectAll("c/open {}", "s/open {}")
			origin.publish(3)
			c.expectAll("c/message event 1", "c/message event 2", "c/message event 3")
			config(forms[1])
			c.next("c/end")
			origin.publish(6)
			steady.send("data: x\n\n")
			seen, steadySeen := 3, 0
			for seen < 6 || steadySeen == 0 {
				switch e := c.next("c/message", "c/gap", "c/error", "s/message", "s/end"); e.typ {
				case "c/message":
					if seen++; e.data != fmt.Sprint("event ", seen) {
						t.Fatalf("got %v, want event %d", e, seen)
					}
				case "s/message":
					steadySeen++
				default:
					t.Fatalf("got %v", e)
				}
			}
			if len(multiplexConns()) != 1 {
				t.Error("the connection has ended")
			}
		})
	}
}
