package ssefanout

import (
	"fmt"
	"strings"
	"testing"
)

// A stream that leads to sse_multiplex again is refused, on whatever way it gets there: no
// connection reads what it writes itself.
func TestMultiplexNeverReadsItself(t *testing.T) {
	for name, way := range map[string]string{
		"rewrite":                    "rewrite * /streams?a=/loop\nsse_multiplex",
		"proxy":                      "rewrite * /streams?a=/loop\nreverse_proxy 127.0.0.1:%d",
		"two proxies":                "rewrite * /again\nreverse_proxy 127.0.0.1:%d",
		"a topic, endpoint form":     "rewrite * /streams?a=/loop\nsse_fanout 127.0.0.1:%d",
		"a topic, wrapping form":     "sse_fanout\nrewrite * /streams?a=/loop\nreverse_proxy 127.0.0.1:%d",
		"a topic in another's place": "rewrite * /again\nsse_fanout 127.0.0.1:%d",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			if name != "rewrite" {
				way = fmt.Sprintf(way, s.http)
			}
			s.load(fmt.Sprintf(`
			handle /streams* {
				sse_multiplex
			}
			handle /loop {
				route {
					%s
				}
			}
			handle /again {
				rewrite * /streams?b=/loop
				reverse_proxy 127.0.0.1:%d
			}`, way, s.http))
			c := s.multiplexed("a=/loop")
			for range 100 {
				if e := c.next(); e.data == `{"status":400}` {
					return
				}
			}
			t.Error("it is fed by itself")
		})
	}
}

// A topic may have the events of a connection, as where another sse_fanout stands in front of
// the server. Its streams pass one to one.
func TestMultiplexedConnectionMayBeShared(t *testing.T) {
	origin := newLiveOrigin(t)
	s := newSite(t)
	s.load(fmt.Sprintf(`
	handle_path /edge/* {
		sse_fanout 127.0.0.1:%d
	}
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s
	}`, s.http, origin.addr))
	for range 2 {
		open(t, s.client, s.url+"/edge/streams?a=/a&b=/b")
	}
	waitFor(t, "one connection with two private streams", func() bool {
		return origin.open() == 2 && len(multiplexConns()) == 1 && counted.Multiplex.Private() == 2
	})
	c := open(t, s.client, s.url+"/edge/streams?a=/a&b=/b")
	origin.send(numbered(1, 1))
	for got := ""; !strings.Contains(got, "event: a/message\ndata: event 1\n") || !strings.Contains(got, "event: b/message\ndata: event 1\n"); {
		next := c.next()
		if next == "" {
			t.Fatalf("got %q", got)
		}
		got += next
	}
}
