package ssefanout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// placeholders returns what a request's replacer knows of us.
func placeholders(r *http.Request) string {
	return request.ReplacerOf(r).ReplaceAll("{http.sse_fanout.outcome} {http.sse_fanout.reason} "+
		"{http.sse_fanout.events} {http.sse_fanout.topic.id} {http.sse_fanout.topic}", "-")
}

func TestPlaceholders(t *testing.T) {
	for _, tt := range []struct {
		name    string
		method  string
		lastID  string
		do      func(*setup, *client)
		outcome string // and what follows, with <topic> for id and name
	}{
		{name: "fresh", do: func(s *setup, c *client) { s.origin.next().accept().events(1, 3); c.leave() }, outcome: "fresh client_gone 3 <topic>"},
		{name: "resumed", lastID: "1", do: func(s *setup, c *client) {
			s.origin.next().accept().events(3, 3)
			s.origin.next().accept().events(2, 3)
			c.leave()
		}, outcome: "resumed client_gone 2 <topic>"},
		{name: "gap", lastID: "1", do: func(s *setup, c *client) {
			s.origin.next().accept().events(5, 5)
			s.origin.denyCatchup(chokes["404"])
			c.leave()
		}, outcome: "gap client_gone 1 <topic>"},
		{name: "waiting", do: func(s *setup, c *client) { s.origin.next(); c.leave() }, outcome: "pending client_gone - <topic>"},
		{name: "refused", do: func(s *setup, c *client) { s.origin.next().answer(404).end(); <-c.done }, outcome: "refused refused - <topic>"},
		{name: "passed", method: http.MethodPost, do: func(s *setup, c *client) { s.origin.next().answer(200).end(); <-c.done }, outcome: "passed method - - -"},
		{name: "not a stream", do: func(s *setup, c *client) {
			s.origin.next().answer(200, "Content-Type", "text/html").end()
			s.origin.next().answer(200, "Content-Type", "text/html").end()
			<-c.done
		}, outcome: "passed not_a_stream - <topic>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				method := tt.method
				if method == "" {
					method = http.MethodGet
				}
				var served *http.Request
				r := httptest.NewRequest(method, "/events?token=secret", nil)
				r.Header.Set("Last-Event-ID", tt.lastID)
				c := s.serveAfter(r, func(r *http.Request) { served = r })
				tt.do(s, c)
				synctest.Wait()
				got := placeholders(served)
				want, takesTopic := strings.CutSuffix(tt.outcome, "<topic>")
				if !takesTopic {
					if got != want {
						t.Errorf("the placeholders are %q, want %q", got, want)
					}
					return
				}
				rest, ok := strings.CutPrefix(got, want)
				id, name, _ := strings.Cut(rest, " ")
				if !ok || len(id) != 12 || name != "example.com/events "+id {
					t.Errorf("the placeholders are %q, want %q", got, tt.outcome)
				}
			})
		})
	}
}

func TestPlaceholdersOfARejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{Total: 1}})
		s.joinLive(1, 1)
		var served *http.Request
		c := s.serveAfter(httptest.NewRequest(http.MethodGet, "/events", nil), func(r *http.Request) { served = r })
		<-c.done
		if got, want := placeholders(served), "rejected max_subscribers - - -"; got != want {
			t.Errorf("the placeholders are %q, want %q", got, want)
		}
	})
}

// accessLog returns the lines of the access log for a path, as far as they are
// ours.
func (s *liveSite) accessLog(path string) (lines []map[string]any) {
	s.t.Helper()
	data, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var entry struct {
			Logger  string               `json:"logger"`
			Request struct{ URI string } `json:"request"`
			Ours    map[string]any       `json:"sse_fanout"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Logger, "http.log.access") && entry.Request.URI == path {
			lines = append(lines, entry.Ours)
		}
	}
	return lines
}

// Of a connection that is handed over, the access log has the line when the HTTP
// server lets go of it.
func TestAccessLogOfAConnectionThatIsHandedOver(t *testing.T) {
	needsDirect(t)
	origin := newLiveOrigin(t)
	s := run(t, "log\nsse_fanout "+origin.addr)
	first := open(t, s.client, s.url+"/events")
	origin.send(numbered(1, 2))
	first.expect(numbered(1, 2))
	waitFor(t, "a line of the access log", func() bool { return len(s.accessLog("/events")) == 1 })
	c := open(t, s.client, s.url+"/events", "Last-Event-ID", "1")
	c.expect(numbered(2, 2))
	waitFor(t, "two lines of the access log", func() bool { return len(s.accessLog("/events")) == 2 })
	got := s.accessLog("/events")[1]
	delete(got, "topic")
	want := map[string]any{"outcome": "resumed", "reason": "handed_over", "events": 1., "bytes": float64(len(numbered(2, 2)))}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the access log says %v, want %v", got, want)
	}
	origin.send(numbered(3, 3))
	c.expect(numbered(3, 3))
}

func TestAccessLogAndHeaderOverSockets(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "log\nheader >X-Topic {http.sse_fanout.topic.id}\nsse_fanout "+origin.addr+" {\ndirect off\n}")
	c := open(t, s.client, s.url+"/events")
	if id := c.header.Get("X-Topic"); !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("the header has the topic %q", id)
	}
	origin.send(numbered(1, 2))
	c.expect(numbered(1, 2))
	c.cancel()
	waitFor(t, "a line of the access log", func() bool { return len(s.accessLog("/events")) == 1 })
	got := s.accessLog("/events")[0]
	want := map[string]any{
		"outcome": "fresh", "reason": "client_gone", "events": 2., "bytes": float64(len(numbered(1, 2))),
		"topic": fmt.Sprintf("127.0.0.1:%d/events %s", s.http, c.header.Get("X-Topic")),
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the access log says %v, want %v", got, want)
	}

	// What is passed on has a line as without us. It has no body, for Caddy's access
	// log reads how long that is while http.Transport may still be reading it, which
	// the race detector tells of reverse_proxy alone too.
	resp, err := s.client.Post(s.url+"/post", "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	waitFor(t, "a line of the access log", func() bool { return len(s.accessLog("/post")) == 1 })
	if got := s.accessLog("/post")[0]; got != nil {
		t.Errorf("the access log says %v of a request that was passed on", got)
	}
}
