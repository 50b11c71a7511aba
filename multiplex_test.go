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

func (s *site) multiplexed(query string, header ...string) *muxClient {
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

func TestTry(t *testing.T) {
	s := run(t, `
	handle /streams* {
		sse_multiplex
	}
	handle /secret {
		respond 403
	}
	handle /events/* {
		sse_fanout {
			source {
				respond "id: 1
data: one

" 200 {
				}
			}
		}
	}
	`)
	c := s.multiplexed("a=/secret&b=/streams%3Fa%3D/x&c=/nothing")
	for range 3 {
		fmt.Println(c.next())
	}
}
