package jetstream

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// Nodes share hundreds of topics, each with a lease and a connection of its own. A node that
// exits gives all its leases up, so that nobody waits for their end.
func TestManyTopics(t *testing.T) {
	const topics = 300
	s, o := startServer(t), newOrigin()
	opts := options{lease: 5 * testLease} // what is the default
	a, b := newNode(t, s, o, "a", opts), newNode(t, s, o, "b", opts)
	clients := make(map[*node][]*client)
	for i := range topics {
		for _, n := range []*node{a, b} {
			clients[n] = append(clients[n], newClientOf(n, fmt.Sprint("topic ", i), ""))
		}
	}
	for _, n := range []*node{a, b} {
		for _, c := range clients[n] {
			eventually(t, "each client is served", c.isServed)
		}
	}
	o.send(3)
	for _, n := range []*node{a, b} {
		for _, c := range clients[n] {
			c.await("3").sequence(1, 3)
		}
	}
	if now, _ := o.connections(); now != topics {
		t.Errorf("the origin has %d connections for %d topics", now, topics)
	}

	a.end()
	bucket, err := b.fleet.store.leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range a.sources {
		entry, err := bucket.Get(t.Context(), s.contest.lease.key)
		if err == nil && string(entry.Value()) == s.contest.lease.owner || err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Fatalf("a lease of the node that has exited is left: %v", err)
		}
	}
	eventually(t, "the other node has all leases", func() bool { return b.leads() == topics })
	eventually(t, "it has all connections", func() bool { now, _ := o.connections(); return now == topics })
	o.send(3)
	for _, c := range clients[b] {
		c.await("6").sequence(1, 6)
	}
}
