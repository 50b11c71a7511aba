package ssefanout

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// The metrics count connections, their streams by kind, and what became of requests.
func TestMultiplexIsCounted(t *testing.T) {
	waitFor(t, "the last test to be over", func() bool { all, _ := subscribersNow(); return all == 0 && len(multiplexConns()) == 0 })
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	metrics /metrics
	handle /streams* {
		sse_multiplex {
			max_connections 1
		}
	}
	handle /own {
		reverse_proxy %[1]s
	}
	handle /no {
		respond 403
	}
	handle /events/* {
		sse_fanout %[1]s
	}`, origin.addr))
	figures := func(since map[string]float64) string {
		now := s.scrape()
		of := func(name string) float64 { return now["caddy_sse_fanout_"+name] - since["caddy_sse_fanout_"+name] }
		return fmt.Sprint(
			of("multiplex_connections"), of("multiplex_shared_streams"), of("multiplex_private_streams"),
			of("multiplex_requests_total"), of("multiplex_refused_total"), of("multiplex_rejected_total"), of("subscribers"))
	}
	first := s.scrape()
	c := s.multiplexed("a=/events/1&b=/events/2&c=/own&d=/no")
	c.expectAll("a/open {}", "b/open {}", "c/open {}", `d/error {"status":403}`)
	if got, want := figures(first), "1 2 1 4 1 0 2"; got != want {
		t.Errorf("the metrics are %s, want %s", got, want)
	}
	if _, body := s.request(http.MethodGet, "/streams?a=/events/1"); !strings.HasPrefix(body, "retry: ") {
		t.Errorf("a second connection got %q", body)
	}
	if got, want := figures(first), "1 2 1 4 1 1 2"; got != want {
		t.Errorf("the metrics are %s, want %s", got, want)
	}
	c.cancel()
	waitFor(t, "the connection to end", func() bool { return figures(first) == "0 0 0 4 1 1 0" })
}

// The inspector shows how many connections there are, and how many streams they have.
func TestInspectorTellsOfConnections(t *testing.T) {
	waitFor(t, "the last test to be over", func() bool { return len(multiplexConns()) == 0 })
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /inspector/* {
		sse_inspector_quick
	}
	handle /streams* {
		sse_multiplex
	}
	handle /own {
		reverse_proxy %[1]s
	}
	handle {
		sse_fanout %[1]s
	}`, origin.addr))
	a, b := s.multiplexed("a=/1&b=/own"), s.multiplexed("a=/1")
	a.expectAll("a/open {}", "b/open {}")
	b.expectAll("a/open {}")
	watch := open(t, s.client, s.url+"/inspector/topics")
	if all := overviewOf(t, watch.next()); all.Connections != 2 || all.Streams != 3 {
		t.Errorf("it tells of %d connections with %d streams, want 2 with 3", all.Connections, all.Streams)
	}
}

// Other handlers, and the access log, learn which connection a request is, which stream it is
// for, and how the connection has ended.
func TestPlaceholdersOfConnections(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	log
	handle /streams* {
		header >X-Connection "{http.sse_multiplex.connection} with {http.sse_multiplex.streams}"
		log_append ended_by {http.sse_multiplex.reason}
		sse_multiplex {
			direct off
		}
	}
	handle {
		log_append stream_of {http.sse_multiplex.alias}
		sse_fanout %s
	}`, origin.addr))
	c := s.multiplexed("first=/a&second=/b", "User-Agent", "first")
	c.expectAll("first/open {}", "second/open {}")
	conn := multiplexConns()[0]
	if got, want := c.resp.Header.Get("X-Connection"), fmt.Sprintf("%d with 2", conn.Number()); got != want {
		t.Errorf("the header says %q, want %q", got, want)
	}
	conn.End(relay.Ending{Reason: relay.EndDeleted})
	c.rest()
	log := func() string {
		text, err := os.ReadFile(s.log)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	waitFor(t, "the line of the connection", func() bool { return strings.Contains(log(), `"ended_by":"deleted"`) })
	waitFor(t, "the lines of the streams", func() bool {
		return strings.Contains(log(), `"stream_of":"first"`) && strings.Contains(log(), `"stream_of":"second"`)
	})
	got := s.accessLog("/streams?first=/a&second=/b")[0]
	want := map[string]any{"connection": float64(conn.Number()), "streams": 2., "reason": "deleted"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the access log says %v, want %v", got, want)
	}
	if lines := s.accessLog("/a"); len(lines) != 1 || lines[0]["outcome"] != "multiplexed" {
		t.Errorf("the access log says %v of the request for a stream", lines)
	}
}

// An administrator ends a connection at once that a reload would end later.
func TestAdministratorEndsAConnectionThatIsEnding(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	c := s.multiplexed("a=/a")
	c.expectAll("a/open {}")
	conn := multiplexConns()[0]
	conn.End(relay.Ending{Reason: relay.EndDrained, Over: 1 << 60})
	origin.send(numbered(1, 1))
	c.expectAll("a/message event 1")
	conn.End(relay.Ending{Reason: relay.EndDeleted})
	if events := c.rest(); len(events) != 0 {
		t.Errorf("got %v", events)
	}
}
