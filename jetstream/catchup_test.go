package jetstream

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// What the stream has, and the log of the node has no more, is not asked of the origin.
func TestACatchUpThatTheStreamHas(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	s := startServer(t)
	short := options{engine: func(cfg *relay.Config) { cfg.History.Bytes = 4 << 10 }}
	a, b := newNode(t, s, o, "a", short), newNode(t, s, o, "b", short)
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	for n := range 10 {
		o.send(50) // less than the log has, or clients are too slow for it
		for _, c := range clients {
			c.await(strconv.Itoa(50*n + 50))
		}
	}
	var late []*client
	for _, n := range []*node{a, b} {
		for _, id := range []string{"1", "250", "499"} {
			late = append(late, newClient(n, id))
		}
	}
	for i, c := range late {
		c.await("500").sequence([]int{2, 251, 500}[i%3], 500)
	}
	if asked := o.fetches(); len(asked) > 0 {
		t.Errorf("the origin was asked for %v", asked)
	}
	o.send(1)
	for i, c := range late {
		c.await("501").sequence([]int{2, 251, 500}[i%3], 501)
	}
}

// missing returns nodes whose stream has nothing of what the origin has sent, so that clients
// which come back need catch-ups.
func missing(t *testing.T, o *origin, events int, lease time.Duration) (nodes []*node) {
	t.Helper()
	s := startServer(t)
	o.send(events)
	for _, name := range []string{"a", "b", "c"} {
		n := newNode(t, s, o, name, options{lease: lease})
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
			last := 1000 // more than are on their way at once
			if text != "" {
				last = 100
			}
			nodes := missing(t, o, last, time.Minute) // a holder that is silent for a quarter of it is not waited for
			var clients []*client
			for range 2 {
				for _, n := range nodes {
					clients = append(clients, newClient(n, "50"))
				}
			}
			for _, c := range clients {
				c.await(o.text(last))
			}
			o.send(1)
			for _, c := range clients {
				got := c.await(o.text(last + 1)).all()
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
	nodes := missing(t, o, 100, testLease)
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
	nodes := missing(t, o, 100, testLease)
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

// An origin that has nothing to send is not asked again for as long as the holder is there.
func TestACatchUpThatTheOriginHasNothingFor(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes := missing(t, o, 100, testLease)
	_, rest, _ := others(holder(nodes...), nodes, make([]*client, len(nodes)))
	c := newClient(rest[0], "100")
	time.Sleep(testLease + testLease/2)
	if asked := o.fetches(); len(asked) != 1 {
		t.Errorf("the origin was asked for %v", asked)
	}
	o.send(1)
	c.await("101").sequence(101, 101)
}

// Messages of a catch-up that the network loses are missed, also if nothing comes behind them.
func TestACatchUpOfWhichMessagesAreLost(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes := missing(t, o, 100, testLease)
	first := holder(nodes...)
	_, rest, _ := others(first, nodes, make([]*client, len(nodes)))
	c := newClient(rest[0], "50")
	c.await("100")
	first.link.cut(true)
	o.send(1)
	eventually(t, "the holder has lost NATS", func() bool { return !first.conn.IsConnected() })
	time.Sleep(testLease / 10)
	first.link.cut(false)
	c.await("101").sequence(51, 101)
}

// A recall ends where what comes next does not follow what it has given.
func TestARecallEndsWhereTheStreamIsNotToBeFollowed(t *testing.T) {
	for name, m := range map[string]message{
		"a new run": {kind: kindRun},
		"a gap":     {kind: kindOpened, body: encodeOpening(&relay.Opening{}, "", true)},
	} {
		if r := (recall{found: true}); r.read(&m, 1) {
			t.Errorf("it goes on behind %s", name)
		}
	}
	missed := recall{found: true}
	missed.order.take(&message{kind: kindMarker, epoch: epoch{1, 1}})
	if missed.take(&delivery{message: message{kind: kindEvent, epoch: epoch{1, 1}, index: 9, acked: 9}}) {
		t.Error("it goes on behind a hole")
	}
}
