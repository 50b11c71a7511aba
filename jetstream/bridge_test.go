package jetstream

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// madeAnewByANewcomer deletes the stream while two nodes are apart at event 10, and has a third
// one, which has had nothing of the topic, make it anew and ask the origin. The origin has had
// the events 11 to 15 by then, and sends 16 to 20 to the newcomer.
func madeAnewByANewcomer(t *testing.T, o *origin, opts options) (clients []*client) {
	t.Helper()
	s := startServer(t)
	nodes := []*node{newNode(t, s, o, "a", opts), newNode(t, s, o, "b", opts)}
	for _, n := range nodes {
		clients = append(clients, newClient(n, ""))
		eventually(t, n.name+" is connected", n.isConnected)
	}
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	for _, n := range nodes {
		o.forbid(n.name, true)
		n.link.cut(true)
	}
	for _, n := range nodes {
		eventually(t, n.name+" is apart", n.isApart)
	}
	if err := js(t, s).DeleteStream(t.Context(), "FLEET"); err != nil {
		t.Fatal(err)
	}
	o.send(5)
	newcomer := newNode(t, s, o, "c", opts)
	fresh := newClient(newcomer, "")
	eventually(t, "the newcomer is connected", newcomer.isConnected)
	o.send(5)
	fresh.await("20").sequence(16, 20)
	for _, n := range nodes {
		n.link.cut(false)
	}
	return clients
}

// The next holder of a stream that was made anew may know of no position. What comes of the
// origin then does not follow on what other nodes have: they fetch what is between.
func TestWhatTheStreamHasNotIsFetched(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.retries = true
	clients := madeAnewByANewcomer(t, o, options{})
	o.send(1)
	for _, c := range clients {
		c.await("21").sequence(1, 21)
	}
	if fetched := o.fetches(); !slices.Contains(fetched, "c:10") {
		t.Errorf("the holder was not asked to fetch what follows 10, but these were fetched: %v", fetched)
	}
}

// What the origin has no longer is a gap, and so is what must not be fetched.
func TestWhatCannotBeFetchedIsAGap(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]options{
		"forgotten":   {},
		"catchup off": {engine: func(cfg *relay.Config) { cfg.Catchups = -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			if name == "forgotten" {
				o.forgot = 15
			}
			want := append(numbers(1, 10), "gap")
			for _, client := range madeAnewByANewcomer(t, o, opts) {
				client.awaitAll(append(want, numbers(16, 20)...))
			}
			if fetched := o.fetches(); o.forgot == 0 && len(fetched) > 0 {
				t.Errorf("with catchup off, these were fetched: %v", fetched)
			}
		})
	}
}

// numbers returns the events from one to another.
func numbers(from, to int) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}
