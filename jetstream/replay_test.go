package jetstream

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// stored returns what the stream has of a topic.
func stored(t *testing.T, n *node) (kinds []kind) {
	t.Helper()
	consumer, err := n.fleet.store.js.CreateConsumer(t.Context(), n.fleet.store.name, jetstream.ConsumerConfig{
		FilterSubject: n.source().subject, AckPolicy: jetstream.AckNonePolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := consumer.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	batch, err := consumer.Fetch(int(info.NumPending), jetstream.FetchMaxWait(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for msg := range batch.Messages() {
		m, err := decodeMessage(msg.Headers(), msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, m.kind)
	}
	return kinds
}

func count(kinds []kind, k kind) int {
	return len(slices.DeleteFunc(slices.Clone(kinds), func(other kind) bool { return other != k }))
}

// What an origin that ignores ids sends again is not in the stream: nodes that come later
// would take it for news.
func TestWhatAnOriginSendsAgainIsNotInTheStream(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.ignores = true
	s := startServer(t)
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	for i := range 3 {
		o.send(10)
		for _, c := range clients {
			c.await(fmt.Sprint(10*i + 10))
		}
		o.end(io.ErrUnexpectedEOF)
	}
	o.send(1)
	for _, c := range clients {
		c.await("31").sequence(1, 31)
	}
	if n := count(stored(t, a), kindEvent); n != 31 {
		t.Errorf("%d events are in the stream, want 31", n)
	}
	cold := newNode(t, s, o, "c", options{})
	late := newClient(cold, "5")
	late.await("31").sequence(6, 31)

	// The newcomer asks the origin, which sends again what only the stream's history has.
	a.end()
	b.end()
	eventually(t, "the newcomer holds the lease", func() bool { return holder(cold) != nil })
	o.send(1)
	late.await("32").sequence(6, 32)
}

// An origin that begins its stream anew sends what the stream has, and it is news. All nodes
// come to know where the new run begins, also those that read of it later.
func TestAnOriginThatBeginsAnew(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{"ended": nil, "broken": io.ErrUnexpectedEOF} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			o.ignores = true
			s := startServer(t)
			a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
			clients := []*client{newClient(a, ""), newClient(b, "")}
			eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
			want := []string{}
			run := func(n int) {
				for i := range n {
					o.send(1)
					want = append(want, fmt.Sprint(i+1))
					if end != nil {
						time.Sleep(time.Second / 4) // the pace tells
					}
				}
				for _, c := range clients {
					c.awaitAll(want)
				}
			}
			run(8)
			o.restart(end)
			asked := len(o.questions())
			eventually(t, "the origin is asked again", func() bool { return len(o.questions()) > asked })
			run(7)
			if n := count(stored(t, a), kindRun); n != 1 {
				t.Errorf("%d new runs are in the stream, want one", n)
			}
			cold := newNode(t, s, o, "c", options{})
			for _, n := range []*node{a, cold} {
				// The id names a place in each of the runs.
				newClient(n, "3").awaitAll(append([]string{"gap"}, want[3:]...))
			}

			// What it repeats from now on is what came in the new run.
			o.end(io.ErrUnexpectedEOF)
			o.send(1)
			want = append(want, "8")
			for _, c := range clients {
				c.awaitAll(want)
			}
		})
	}
}

// The next holder knows what the connections of others have begun with.
func TestAnOriginThatBeginsAnewForTheNextHolder(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.ignores = true
	s := startServer(t)
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	first := holder(a, b)
	_, rest, clients := others(first, []*node{a, b}, clients)
	var want []string
	for n := range 16 {
		if n == 9 {
			o.empty()
			first.end()
			eventually(t, "the other node asks the origin", func() bool { return len(o.questions()) == 2 })
		}
		o.send(1)
		want = append(want, fmt.Sprint(n%9+1))
		time.Sleep(time.Second / 4)
	}
	clients[0].awaitAll(want)
	if holder(rest...) == nil {
		t.Error("the other node does not hold the lease")
	}
}
