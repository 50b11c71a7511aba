package jetstream

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// What the stream has, and the log of the node has no more, is not asked of the origin.
func TestACatchUpThatTheStreamHas(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	s := startServer(t)
	short := options{engine: func(cfg *relay.Config) { cfg.History.Events = 20 }}
	a, b := newNode(t, s, o, "a", short), newNode(t, s, o, "b", short)
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	o.send(500)
	for _, c := range clients {
		c.await("500")
	}
	var late []*client
	for _, n := range []*node{a, b} {
		for _, id := range []string{"1", "250", "479"} {
			late = append(late, newClient(n, id))
		}
	}
	for i, c := range late {
		c.await("500").sequence([]int{2, 251, 480}[i%3], 500)
	}
	if asked := o.fetches(); len(asked) > 0 {
		t.Errorf("the origin was asked for %v", asked)
	}
	o.send(1)
	for i, c := range late {
		c.await("501").sequence([]int{2, 251, 480}[i%3], 501)
	}
}

// missing returns nodes whose stream has nothing of what the origin has sent, so that clients
// which come back need catch-ups.
func missing(t *testing.T, o *origin, events int) (nodes []*node) {
	t.Helper()
	s := startServer(t)
	o.send(events)
	for _, name := range []string{"a", "b", "c"} {
		n := newNode(t, s, o, name, options{})
		newClient(n, "")
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		eventually(t, n.name+" is connected", n.isConnected)
	}
	return nodes
}

// Clients that have missed the same come back to all nodes at once: the origin is asked once.
func TestACatchUpIsAskedForOnce(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"small": "", "more than an errand takes": strings.Repeat("x", 50<<10)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			o.text = func(n int) string { return strconv.Itoa(n) + text }
			nodes := missing(t, o, 100)
			var clients []*client
			for range 2 {
				for _, n := range nodes {
					clients = append(clients, newClient(n, "50"))
				}
			}
			for _, c := range clients {
				c.await(o.text(100))
			}
			o.send(1)
			for _, c := range clients {
				got := c.await(o.text(101)).all()
				for i, g := range got {
					if g != o.text(51+i) {
						t.Fatalf("event %d is %.10s", 51+i, g)
					}
				}
			}
			asked := o.fetches()
			if holder := holder(nodes...).name; len(asked) == 0 || text == "" && len(asked) > 1 {
				t.Errorf("the origin was asked for %v", asked)
			} else {
				for i, asked := range asked {
					if !strings.HasPrefix(asked, holder+":") {
						t.Errorf("request %d was made by %s, and %s holds the lease", i, asked, holder)
					}
				}
			}
		})
	}
}

// A holder that dies leaves the catch-ups of others to them.
func TestACatchUpGoesOnWithoutTheHolder(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes := missing(t, o, 100)
	first := holder(nodes...)
	var clients []*client
	for _, n := range nodes {
		if n != first {
			clients = append(clients, newClient(n, "50"))
		}
	}
	for _, c := range clients {
		c.await("100")
	}
	first.kill()
	o.send(10)
	for _, c := range clients {
		c.await("110").sequence(51, 110)
	}
}

// A holder that others cannot ask is none that they wait for.
func TestACatchUpThatTheHolderDoesNotAnswer(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes := missing(t, o, 100)
	first := holder(nodes...)
	goOn := first.link.stop()
	defer goOn()
	for _, n := range nodes {
		if n != first {
			newClient(n, "50").await("100")
			break
		}
	}
	for _, asked := range o.fetches() {
		if strings.HasPrefix(asked, first.name) {
			t.Errorf("a catch-up was asked for by the holder")
		}
	}
}
