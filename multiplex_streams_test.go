package ssefanout

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A stream that passes one to one, as with cookies in the wrapping form, is its client's
// alone: another client, and another stream of the same connection, has its own.
func TestMultiplexKeepsPrivateStreamsApart(t *testing.T) {
	var open atomic.Int64
	personal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "id: 1\ndata: for %s\n\n", r.Header.Get("Cookie"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer personal.Close()
	defer personal.CloseClientConnections()
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout
		reverse_proxy %s
	}`, personal.Listener.Addr()))
	alice := s.multiplexed("a=/mine&b=/mine", "Cookie", "user=alice")
	alice.expectAll("a/open {}", "a/message for user=alice", "b/open {}", "b/message for user=alice")
	bob := s.multiplexed("a=/mine&b=/mine", "Cookie", "user=bob")
	bob.expectAll("a/open {}", "a/message for user=bob", "b/open {}", "b/message for user=bob")
	nobody := s.multiplexed("a=/mine")
	nobody.expectAll("a/open {}", "a/message for ")
	if n := open.Load(); n != 5 {
		t.Errorf("the origin has %d connections, want four private ones and one that is shared", n)
	}
	if private, shared := counted.Multiplex.Private(), counted.Multiplex.Shared(); private != 4 || shared != 1 {
		t.Errorf("%d streams are private and %d shared, want 4 and 1", private, shared)
	}
	alice.cancel()
	waitFor(t, "her connections to the origin to close", func() bool { return open.Load() == 3 })
	bob.cancel()
	nobody.cancel()
	waitFor(t, "all to leave", func() bool { return counted.Multiplex.Private()+counted.Multiplex.Shared() == 0 })
}

// While one stream catches up with what its topic's history no longer has, the others go on.
func TestMultiplexCatchesUpInOneStream(t *testing.T) {
	behind, steady := newLiveOrigin(t), newLiveOrigin(t)
	asked, release := make(chan struct{}), make(chan struct{})
	archive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") != "0" {
			behind.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		close(asked)
		<-release
		_, _ = io.WriteString(w, numbered(1, 5))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer archive.Close()
	defer archive.CloseClientConnections()
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /behind {
		sse_fanout %s
	}
	handle {
		sse_fanout %s
	}`, archive.Listener.Addr(), steady.addr))
	keeper := s.multiplexed("b=/behind")
	keeper.expectAll("b/open {}")
	behind.send(numbered(1, 5))
	for i := range 5 {
		keeper.expectAll(fmt.Sprint("b/message event ", 1+i))
	}

	c := s.multiplexed("b=/behind&s=/steady", "Last-Event-ID", "b:0")
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("no catch-up has begun")
	}
	c.expectAll("b/open {}", "s/open {}")
	for i := range 3 {
		steady.send(numbered(i, i))
		c.expectAll(fmt.Sprint("s/message event ", i))
	}
	if c.last != "b:0,s:2" {
		t.Errorf("the id is %q", c.last)
	}
	close(release)
	for i := 1; i <= 5; i++ {
		c.expectAll(fmt.Sprint("b/message event ", i))
	}
	behind.send(numbered(6, 6))
	c.expectAll("b/message event 6")
	steady.send(numbered(3, 3))
	c.expectAll("s/message event 3")
	if c.last != "b:6,s:3" {
		t.Errorf("the id is %q", c.last)
	}
}

// What becomes of one stream is told under its alias, and the others go on.
func TestMultiplexStreamThatEndsHarmsNoOther(t *testing.T) {
	const page = "retry: 1100\nid: 1\ndata: x\n\n"
	for name, tc := range map[string]struct {
		options string
		want    []string // what comes of the stream, the answers being one stream and then 204
	}{
		"the origin's end is the client's": {"on_end close", []string{"e/open {}", "e/message x", `e/end {"retry":1200}`, `e/error {"status":204}`}},
		"the topic asks again":             {"stream_close_delay 10ms", []string{"e/open {}", "e/message x", "e/end", `e/error {"status":204}`}},
	} {
		t.Run(name, func(t *testing.T) {
			steady := newLiveOrigin(t)
			var asked atomic.Int64
			ending := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) > 1 {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, page)
			}))
			defer ending.Close()
			s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /ending {
		sse_fanout %s {
			retry 1200ms
			%s
		}
	}
	handle {
		sse_fanout %s
	}`, ending.Listener.Addr(), tc.options, steady.addr))
			c := s.multiplexed("e=/ending&s=/steady")
			sent, seen := 0, 0
			for begun := false; len(tc.want) > 0 || seen < sent; {
				switch e := c.next(); {
				case e.typ == "s/open":
					begun = true
				case e.typ == "s/message" && e.data == fmt.Sprint("event ", seen):
					seen++
				case len(tc.want) > 0 && strings.HasPrefix(e.typ+" "+e.data, tc.want[0]):
					tc.want = tc.want[1:]
				default:
					t.Fatalf("got %v, want %s", e, tc.want)
				}
				if begun && sent == seen && sent < 10-len(tc.want) {
					steady.send(numbered(sent, sent))
					sent++
				}
			}
			if seen == 0 {
				t.Error("nothing has come of the other stream")
			}
		})
	}
}

// The end of a private stream is told at once, however soon it follows the last event, and so
// is an event that is too large.
func TestMultiplexTellsTheEndOfAPrivateStreamAtOnce(t *testing.T) {
	brief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: x\n\n")
		if r.URL.Path == "/large" {
			_, _ = io.WriteString(w, "data: "+strings.Repeat("x", 2000)+"\n\n")
		}
	}))
	defer brief.Close()
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex {
			heartbeat off
			max_event_size 1KiB
		}
	}
	handle {
		reverse_proxy %s
	}`, brief.Listener.Addr()))
	for range 100 {
		c := s.multiplexed("brief=/brief&large=/large")
		c.expectAll("brief/open {}", "brief/message x", `brief/end {"retry":3000}`,
			"large/open {}", "large/message x", `large/error {"status":413}`)
		c.cancel()
	}
}

// A stream that its origin refuses has the status of that answer, shared or not.
func TestMultiplexTellsTheStatusOfARefusal(t *testing.T) {
	steady := newLiveOrigin(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/endpoint/%d", &status)
		_, _ = fmt.Sscanf(r.URL.Path, "/wrapping/%d", &status)
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer refusing.Close()
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /endpoint/* {
		sse_fanout %[1]s
	}
	handle /wrapping/* {
		sse_fanout
		reverse_proxy %[1]s
	}
	handle {
		sse_fanout %[2]s
	}`, refusing.Listener.Addr(), steady.addr))
	for _, form := range []string{"endpoint", "wrapping"} {
		query, want := "s=/steady", []string{"s/open {}"}
		for _, status := range []int{200, 204, 302, 307, 400, 401, 403, 404, 410, 451} {
			query += fmt.Sprintf("&e%d=/%s/%d", status, form, status)
			want = append(want, fmt.Sprintf(`e%d/error {"status":%d}`, status, status))
		}
		c := s.multiplexed(query)
		c.expectAll(want...)
		steady.send("data: x\n\n")
		c.expectAll("s/message x")
		c.cancel()
	}
}

// A private stream in a coding is none that the connection can read. The page may ask for it
// over a connection of its own.
func TestMultiplexOfAStreamInACoding(t *testing.T) {
	packed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(http.StatusOK)
	}))
	defer packed.Close()
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		reverse_proxy %s
	}`, packed.Listener.Addr()))
	s.multiplexed("a=/x").expectAll(`a/error {"status":406}`)
}

// A client is greeted in each stream with the first events of the origin's connection, and
// goes on behind them.
func TestMultiplexGreetsWithTheFirstEvents(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s {
			greeting 2
		}
	}`, origin.addr))
	c := s.multiplexed("a=/x&b=/y")
	c.expectAll("a/open {}", "b/open {}")
	origin.send("data: 1\n\ndata: 2\n\ndata: 3\n\n")
	c.expectAll("a/message 1", "a/message 2", "a/message 3", "b/message 1", "b/message 2", "b/message 3")
	late := s.multiplexed("b=/y&a=/x")
	late.expectAll("a/open {}", "a/message 1", "a/message 2", "a/message 3", "b/open {}", "b/message 1", "b/message 2", "b/message 3")
}
