package jetstream

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// What a single node promises holds on each node of a fleet.

func greetingOfOne(cfg *relay.Config) { cfg.GreetingEvents = 1 }

func TestTheGreetingIsThereOnAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.greets = true
	s, opts := startServer(t), options{engine: greetingOfOne}
	a, b := newNode(t, s, o, "a", opts), newNode(t, s, o, "b", opts)
	clients := []*client{newClient(a, ""), newClient(b, "")}
	want := []string{"connection 0", "1", "2", "3"}
	for _, c := range clients {
		c.await("connection 0")
	}
	o.send(3)
	for _, c := range clients {
		c.awaitAll(want)
	}
	for _, n := range []*node{a, b, newNode(t, s, o, "cold", opts)} {
		newClient(n, "").awaitAll(want)
	}
	o.end(io.ErrUnexpectedEOF)
	for _, c := range clients {
		c.await("connection 1")
	}
	o.send(1)
	for _, n := range []*node{a, b, newNode(t, s, o, "colder", opts)} {
		newClient(n, "").awaitAll([]string{"connection 1", "4"})
	}
}

// purge makes the stream keep only its newest messages, as if the others were too old.
func purge(t *testing.T, n *node, keep uint64) {
	t.Helper()
	stream, err := n.fleet.store.js.Stream(t.Context(), "FLEET")
	if err != nil {
		t.Fatal(err)
	}
	if keep == 0 {
		err = stream.Purge(t.Context())
	} else {
		err = stream.Purge(t.Context(), jetstream.WithPurgeKeep(keep))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A node that joins when the stream has the greeting no more asks for another one.
func TestAGreetingThatTheStreamHasNoMore(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.greets = true
	s, opts := startServer(t), options{engine: greetingOfOne}
	a := newNode(t, s, o, "a", opts)
	first := newClient(a, "").await("connection 0")
	o.send(10)
	first.await("10")
	purge(t, a, 4)
	late := newClient(newNode(t, s, o, "b", opts), "")
	late.await("connection 1")
	o.send(1)
	late.awaitAll([]string{"connection 1", "11"})
	first.await("11")
}

func TestAnEndThatIsPassedOnEndsTheClientsOfAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	_, clients := threeNodes(t, o, options{engine: func(cfg *relay.Config) { cfg.CloseOnEnd = true }})
	o.send(3)
	for _, c := range clients {
		c.await("3")
	}
	o.send(1)
	o.end(nil)
	for _, c := range clients {
		<-c.over
		c.sequence(1, 4)
	}
}

// 204 is an origin's polite stop: clients are not to come back.
func TestAnOriginThatIsGoneEndsTheClientsOfAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	_, clients := threeNodes(t, o, options{})
	o.send(3)
	for _, c := range clients {
		c.await("3")
	}
	asked := len(o.questions())
	o.answer(&relay.Outcome{Verdict: relay.Gone, Status: 204})
	o.end(io.ErrUnexpectedEOF)
	for _, c := range clients {
		<-c.over
		c.sequence(1, 3)
	}
	// The id may have been the cause, so the holder has asked without it, too. Others may
	// have asked since, if they had not heard of that yet.
	if n := len(o.questions()) - asked; n > 2*len(clients) {
		t.Errorf("the origin was asked %d times", n)
	}
}

// refused waits until a client has been answered with no stream, and returns that answer.
func refused(c *client) string {
	c.t.Helper()
	select {
	case <-c.over:
	case <-time.After(20 * time.Second):
		c.t.Fatal("a client waits for ever")
	}
	return strings.Join(c.all(), ", ")
}

var forbidden = &relay.Outcome{Verdict: relay.No, Status: 403, Header: map[string][]string{"X-Why": {"closed"}}, Body: []byte("go away")}

const isForbidden = "refused: 403 map[X-Why:[closed]] go away"

// An origin's no is for the clients of all nodes, with its status, header and body.
func TestARefusalIsForTheClientsOfAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.answer(forbidden)
	s := startServer(t)
	for _, name := range []string{"a", "b", "c"} {
		if got := refused(newClient(newNode(t, s, o, name, options{}), "")); got != isForbidden {
			t.Errorf("the client of %s has got %q", name, got)
		}
	}
}

// A node that joins a fleet whose origin has begun to refuse does not ask once more: the last
// answer is in the stream. Who has a stream is not ended for it at once.
func TestANodeThatJoinsWhileTheOriginRefuses(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	s := startServer(t)
	a := newNode(t, s, o, "a", options{})
	admitted := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	o.answer(forbidden)
	o.end(io.ErrUnexpectedEOF)
	eventually(t, "the origin has refused", func() bool { return len(o.questions()) > 1 })
	if got := refused(newClient(newNode(t, s, o, "b", options{}), "")); got != isForbidden {
		t.Errorf("the client of b has got %q", got)
	}
	for _, asked := range o.questions() {
		if strings.HasPrefix(asked, "b:") {
			t.Error("b has asked the origin")
		}
	}
	o.answer(nil)
	o.send(1)
	eventually(t, "a is connected again", a.isConnected)
	o.send(1)
	admitted.await("2")
}

// Who comes while no node reaches the origin waits for it.
func TestANodeThatJoinsWhileTheOriginIsAway(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	s := startServer(t)
	a := newNode(t, s, o, "a", options{})
	clients := []*client{newClient(a, "")}
	eventually(t, "a is connected", a.isConnected)
	o.send(1)
	clients[0].await("1")
	for _, node := range []string{"a", "b"} {
		o.forbid(node, true)
	}
	eventually(t, "a has lost its connection", func() bool { return !a.isConnected() })
	b := newNode(t, s, o, "b", options{})
	clients = append(clients, newClient(b, ""))
	time.Sleep(testLease)
	for _, node := range []string{"a", "b"} {
		o.forbid(node, false)
	}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	o.send(1)
	clients[0].awaitAll([]string{"1", "2"})
	clients[1].awaitAll([]string{"2"})
}

// A topic without clients lingers on its node, and the connection stays for as long as any
// node has the topic.
func TestATopicThatLingersKeepsTheConnection(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	s, opts := startServer(t), options{engine: func(cfg *relay.Config) { cfg.Linger = time.Hour }}
	a, b := newNode(t, s, o, "a", opts), newNode(t, s, o, "b", opts)
	c := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	o.send(1)
	c.await("1")
	c.close()
	o.send(5)
	late := newClient(b, "1")
	late.await("6").sequence(2, 6)
	o.send(1)
	late.await("7").sequence(2, 7)
	if asked := o.questions(); len(asked) != 1 || asked[0] != "a:" {
		t.Errorf("the origin was asked by %v", asked)
	}
}

// An id that was assigned on one node is known on all others, also on those that have come
// later.
func TestAssignedIDsAreGoodOnEachNode(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.noIDs = true
	s, opts := startServer(t), options{assign: true}
	a := newNode(t, s, o, "a", opts)
	b := newNode(t, s, o, "b", opts)
	first, second := newClient(a, ""), newClient(b, "")
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	o.send(3)
	id := first.await("3").lastID()
	second.await("3")
	o.send(3)
	first.await("6")
	for _, n := range []*node{a, b, newNode(t, s, o, "cold", opts)} {
		newClient(n, id).awaitAll([]string{"4", "5", "6"})
	}
}

// A node that joins long after the connection was made finds nothing in the stream that says
// so, and asks its holder.
func TestANodeThatJoinsAStreamWithoutItsBeginning(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]uint64{"events alone": 5, "nothing": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			s := startServer(t)
			a := newNode(t, s, o, "a", options{})
			first := newClient(a, "")
			eventually(t, "a is connected", a.isConnected)
			o.send(20)
			first.await("20")
			purge(t, a, kept)
			b := newNode(t, s, o, "b", options{})
			late := newClient(b, "")
			eventually(t, "b is connected", b.isConnected)
			o.send(1)
			late.awaitAll([]string{"21"}) // what the stream has is for those who resume
			if asked := o.questions(); len(asked) != 1 {
				t.Errorf("the origin was asked by %v", asked)
			}
		})
	}
}
