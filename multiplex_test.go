package ssefanout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A muxClient is a connection of sse_multiplex through a real Caddy.
type muxClient struct {
	t      *testing.T
	resp   *http.Response
	cancel context.CancelFunc
	blocks chan muxEvent
	last   string // the id in force
}

type muxEvent struct{ id, typ, data string }

func (e muxEvent) String() string { return fmt.Sprintf("%s %s [%s]", e.typ, e.data, e.id) }

func (s *liveSite) multiplexed(query string, header ...string) *muxClient {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/streams?"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	asBrowser(r)
	addHeader(r, header)
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	c := &muxClient{t: s.t, resp: resp, cancel: cancel, blocks: make(chan muxEvent, 1000)}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("got %s: %s", resp.Status, body)
	}
	go c.run()
	return c
}

func (c *muxClient) run() {
	defer close(c.blocks)
	var e muxEvent
	var id string
	scanner := bufio.NewScanner(c.resp.Body)
	scanner.Buffer(nil, 32<<20)
	for scanner.Scan() {
		line := scanner.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if e.typ != "" {
				e.id = id
				c.blocks <- e
			}
			e = muxEvent{}
		case name == "id" || name == "id:":
			id = value
		case name == "event":
			e.typ = value
		case name == "data":
			e.data += value
		}
	}
}

// next returns the next event, of the types that begin with one of the prefixes if there
// are any.
func (c *muxClient) next(prefixes ...string) muxEvent {
	c.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-c.blocks:
			if !ok {
				c.t.Fatal("the connection has ended")
			}
			c.last = e.id
			if len(prefixes) == 0 {
				return e
			}
			for _, prefix := range prefixes {
				if strings.HasPrefix(e.typ, prefix) {
					return e
				}
			}
		case <-timeout:
			c.t.Fatalf("no event of %q", prefixes)
		}
	}
}

// expectAll checks that these events come, in any order of the streams.
func (c *muxClient) expectAll(want ...string) {
	c.t.Helper()
	missing := make(map[string]int)
	for _, w := range want {
		missing[w]++
	}
	for range want {
		e := c.next()
		got := e.typ + " " + e.data
		if missing[got] == 0 {
			c.t.Errorf("got %s", got)
		}
		missing[got]--
	}
}

// Streams that are shared, private and refused come over one connection, each event under
// its alias, and each id has the positions of all.
func TestMultiplexBringsStreamsOfAllKinds(t *testing.T) {
	prices, chat := newLiveOrigin(t), newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /secret {
		respond 403
	}
	handle /gone {
		respond 204
	}
	handle /page {
		respond "a page"
	}
	handle /events/* {
		sse_fanout %s
	}
	handle /chat/* {
		reverse_proxy %s
	}`, prices.addr, chat.addr))
	c := s.multiplexed("secret=/secret&gone=/gone&again=/streams%3Fa%3D/x&page=/page&nothing=/nothing", "Origin", s.url)
	c.expectAll(
		`secret/error {"status":403}`, `gone/error {"status":204}`, `again/error {"status":400}`,
		`page/error {"status":200}`, `nothing/error {"status":200}`)

	a := s.multiplexed("p=/events/prices&q=/events/prices%3Fall&chat=/chat/7")
	a.expectAll(`p/open {}`, `q/open {}`, `chat/open {}`)
	if n := prices.open(); n != 2 {
		t.Errorf("the origin has %d connections, want one for each topic", n)
	}
	prices.send("id: 17\ndata: one\n\n")
	a.expectAll(`p/message one`, `q/message one`)
	chat.send("id: a b,c:d%~\nevent: said\ndata: hello\ndata: you\n\n")
	e := a.next()
	if e.typ != "chat/said" || e.data != "helloyou" || e.id != "p:17,q:17,chat:a%20b%2Cc%3Ad%25%7E" {
		t.Errorf("got %v", e)
	}
	for _, typ := range []string{"open", "gap", "end", "error", "~x"} {
		prices.send("event: " + typ + "\ndata: x\n\n")
		a.expectAll("p/~"+typ+" x", "q/~"+typ+" x")
	}
	if e := a.last; e != "p:17,q:17,chat:a%20b%2Cc%3Ad%25%7E" {
		t.Errorf("the id is %q", e)
	}

	// Another connection shares the topics, with another set of streams, and goes on.
	prices.send("id: 18\ndata: two\n\n")
	a.expectAll("p/message two", "q/message two")
	a.cancel()
	prices.send("id: 19\ndata: three\n\n")
	b := s.multiplexed("p=/events/prices&more=/events/other", "Last-Event-ID", a.last)
	b.expectAll(`p/open {}`, `p/message three`, `more/open {}`)
}
