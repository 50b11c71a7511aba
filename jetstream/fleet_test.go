package jetstream

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// threeNodes returns three nodes with a client each, which are all connected.
func threeNodes(t *testing.T, o *origin, opts options) (nodes []*node, clients []*client) {
	t.Helper()
	s := startServer(t)
	for _, name := range []string{"a", "b", "c"} {
		n := newNode(t, s, o, name, opts)
		nodes = append(nodes, n)
		clients = append(clients, newClient(n, ""))
	}
	for _, c := range clients {
		eventually(t, "the client is served", c.isServed)
	}
	return nodes, clients
}

// others returns the nodes and clients but those of a node.
func others(n *node, nodes []*node, clients []*client) (his *client, rest []*node, restClients []*client) {
	for i, m := range nodes {
		if m == n {
			his = clients[i]
			continue
		}
		rest = append(rest, m)
		restClients = append(restClients, clients[i])
	}
	return his, rest, restClients
}

func TestOneUpstreamForAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	_, clients := threeNodes(t, o, options{})
	o.send(100)
	for _, c := range clients {
		c.await("100").sequence(1, 100)
	}
	if _, most := o.connections(); most != 1 {
		t.Errorf("%d connections to the origin", most)
	}
}

func TestAHolderThatLeavesGivesUpItsLease(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	first.end()
	his, rest, _ := others(first, nodes, clients)
	o.send(10)
	his.move(rest[0])
	eventually(t, "another node holds the lease", func() bool { return holder(rest...) != nil })
	o.send(10)
	for _, c := range clients {
		c.await("30").sequence(1, 30)
	}
	if _, most := o.connections(); most != 1 {
		t.Errorf("%d connections to the origin at once", most)
	}
}

func TestAHolderThatDiesIsReplaced(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	first.kill()
	his, rest, _ := others(first, nodes, clients)
	o.send(10)
	his.move(rest[0])
	for _, c := range clients {
		c.await("20").sequence(1, 20)
	}
}

func TestTheLastNodeClosesTheUpstream(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	_, clients := threeNodes(t, o, options{})
	for i, c := range clients {
		if now, _ := o.connections(); now > 1 {
			t.Errorf("%d connections to the origin with %d clients gone", now, i)
		}
		c.close()
	}
	eventually(t, "no connection to the origin is left", func() bool { now, _ := o.connections(); return now == 0 })
}

func TestHistorySurvivesARestartOfAllNodes(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a := newNode(t, s, o, "a", options{})
	c := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	o.send(50)
	c.await("50")
	a.end()
	c.close()
	b := newNode(t, s, o, "b", options{})
	late := newClient(b, "20")
	late.await("50")
	o.send(1)
	late.await("51").sequence(21, 51)
	if asked := o.questions(); asked[len(asked)-1] != "b:50" {
		t.Errorf("the origin was asked for %v: the stream has all up to 50", asked)
	}
}

func TestLargeEventsComeInParts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	large := strings.Repeat("x", 1<<20-10)
	o := newOrigin()
	o.text = func(n int) string { return fmt.Sprintf("%d %s", n, large) }
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	o.send(3)
	for _, c := range clients {
		c.await(o.text(3))
		if got := c.all(); len(got) != 3 || got[0] != o.text(1) || got[1] != o.text(2) {
			t.Errorf("%d events have come", len(got))
		}
	}
}

func TestANodeThatCannotReachTheOriginLeavesItToOthers(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	clients[0].await("10")
	first := holder(nodes...)
	o.forbid(first.name, true)
	o.send(10)
	for _, c := range clients {
		c.await("20").sequence(1, 20)
	}
	if now := holder(nodes...); now == first {
		t.Error("the node holds the lease that does not reach the origin")
	}
}

func TestEventsWithoutIDsGetTheSameOnAllNodes(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.noIDs = true
	nodes, clients := threeNodes(t, o, options{assign: true})
	o.send(10)
	for _, c := range clients {
		c.await("10").sequence(1, 10)
	}
	if clients[0].lastID() == "" || clients[0].lastID() != clients[1].lastID() {
		t.Errorf("the clients have come to the ids %q and %q", clients[0].lastID(), clients[1].lastID())
	}
	if !strings.HasPrefix(clients[0].lastID(), relay.AssignedPrefix) {
		t.Errorf("the id %q may go to the origin", clients[0].lastID())
	}
	_, rest, restClients := others(holder(nodes...), nodes, clients)
	restClients[0].close()
	o.send(10)
	restClients[1].await("20")
	restClients[0].move(rest[1])
	restClients[0].await("20").sequence(1, 20)
}

func TestAStaleHolderIsNotHeard(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	his, rest, restClients := others(first, nodes, clients)

	// Its clock stands still, as in a machine that sleeps, and what it sends is on its way for
	// longer than its lease lasts. It takes all of this for published.
	goOn := first.link.stop()
	first.clock.stop()
	o.send(10)
	eventually(t, "another node holds the lease", func() bool { return holder(rest...) != nil })
	o.send(10)
	for _, c := range restClients {
		c.await("30")
	}
	goOn()
	o.send(10)
	for _, c := range append(restClients, his) {
		c.await("40").sequence(1, 40)
	}
	lost := 0
	for _, n := range nodes {
		lost += n.logs.FilterMessageSnippet("messages may be lost").Len()
	}
	if lost > 3 {
		t.Errorf("that messages may be lost was logged %d times, for a stream that was not there for a moment", lost)
	}
}

func TestANodeWithoutNATSAsksTheOriginItself(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	his, rest, _ := others(first, nodes, clients)
	for i, n := range []*node{first, rest[0]} { // a holder, and one that is none
		n.link.cut(true)
		o.send(10)
		for _, c := range clients {
			c.await(fmt.Sprint(20 + 20*i))
		}
		if n.logs.FilterMessageSnippet("JetStream is away").Len() == 0 {
			t.Errorf("%s is silent about being apart", n.name)
		}
		n.link.cut(false)
		eventually(t, n.name+" is with the fleet again", func() bool {
			return n.logs.FilterMessageSnippet("JetStream is back").Len() > 0
		})
		o.send(10)
		for _, c := range clients {
			c.await(fmt.Sprint(30 + 20*i))
		}
	}
	for _, c := range clients {
		c.sequence(1, 50)
	}
	_ = his
	eventually(t, "there is one connection to the origin again", func() bool { now, _ := o.connections(); return now == 1 })
}

func TestAllNodesWithoutNATS(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	for _, n := range nodes {
		n.link.cut(true)
	}
	o.send(10)
	for _, c := range clients {
		c.await("20")
	}
	for _, n := range nodes {
		n.link.cut(false)
	}
	for _, n := range nodes {
		eventually(t, n.name+" is with the fleet again", func() bool {
			return n.logs.FilterMessageSnippet("JetStream is back").Len() > 0
		})
	}
	o.send(10)
	for _, c := range clients {
		c.await("30").sequence(1, 30)
	}
	eventually(t, "there is one connection to the origin again", func() bool { now, _ := o.connections(); return now == 1 })
}

// A holder may read its own messages late. When the origin is asked again meanwhile, as its
// connection has ended, what it has sent must not be asked for once more: all nodes gave their
// clients these events twice.
func TestAHolderReadsWhatItHasPublishedBeforeItAsksAgain(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a := newNode(t, s, o, "a", options{engine: func(cfg *relay.Config) { cfg.IdleTimeout = testLease / 10 }})
	c := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	o.send(10)
	c.await("10")
	goOn := a.link.hold()
	o.send(5)
	o.end(io.ErrUnexpectedEOF)
	time.Sleep(testLease / 3) // idle_timeout passes, and the holder has lost nothing yet
	goOn()
	o.send(5)
	c.await("20").sequence(1, 20)
}

// A holder that waits for its own messages can exit. It once turned in a circle.
func TestAHolderExitsThoughItHasNotReadWhatItHasPublished(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a := newNode(t, s, o, "a", options{engine: func(cfg *relay.Config) { cfg.IdleTimeout = testLease / 10 }})
	c := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	o.send(10)
	c.await("10")
	defer a.link.hold()()
	o.end(io.ErrUnexpectedEOF)
	time.Sleep(testLease / 3) // idle_timeout passes
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.end()
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the node has not exited for 10 s")
	}
}

// A connection to NATS may be half open: neither side is told, and the node notices by pings that
// have no answer.
func TestAHalfOpenConnectionIsLeft(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	clients := []*client{newClient(a, ""), newClient(b, "")}
	eventually(t, "both are connected", func() bool { return a.isConnected() && b.isConnected() })
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	a.link.freeze()
	b.link.freeze()
	o.send(10)
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" is connected to NATS again", func() bool { return n.logs.FilterMessageSnippet("connected to NATS again").Len() > 0 })
		eventually(t, n.name+" is with the fleet", func() bool { return !n.isApart() })
	}
	o.send(10)
	for _, c := range clients {
		c.await("30").sequence(1, 30)
	}
}

// A node that reaches neither NATS nor the origin is with the fleet as soon as it reaches NATS,
// however long it would have waited to ask the origin again. It once did not notice: it looked
// for NATS only while it asked the origin.
func TestANodeWithoutNATSAndOriginComesBack(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a := newNode(t, s, o, "a", options{})
	newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	b := newNode(t, s, o, "b", options{engine: func(cfg *relay.Config) {
		cfg.ReconnectMin, cfg.ReconnectMax = time.Hour, time.Hour
	}})
	c := newClient(b, "")
	eventually(t, "b is connected", b.isConnected)
	o.send(10)
	c.await("10")
	o.forbid("b", true)
	b.link.cut(true)
	eventually(t, "b is apart", b.isApart)
	eventually(t, "b has lost the origin", func() bool { return !b.isConnected() })
	b.link.cut(false)
	o.send(10)
	c.await("20").sequence(1, 20)
}

// Nodes that begin without NATS have events when they come to a stream that has none: it goes on
// where they are. The holder once asked the origin without an id, and all waited for an event
// that the stream was never to get.
func TestNodesComeToAnEmptyStream(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	var nodes []*node
	var clients []*client
	for _, name := range []string{"a", "b"} {
		n := newNode(t, s, o, name, options{})
		n.link.cut(true)
		eventually(t, "the connection is lost", func() bool { return !n.conn.IsConnected() })
		n.fleet.began = time.Now().Add(-time.Hour)
		nodes, clients = append(nodes, n), append(clients, newClient(n, ""))
		eventually(t, name+" asks the origin", n.isConnected)
	}
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	for _, n := range nodes {
		n.link.cut(false)
	}
	eventually(t, "one node asks the origin for both", func() bool { now, _ := o.connections(); return now == 1 && holder(nodes...) != nil })
	began := time.Now()
	o.send(5)
	for _, c := range clients {
		c.await("15").sequence(1, 15)
	}
	if took := time.Since(began); took >= skipTime {
		t.Errorf("the nodes have waited for %s", took)
	}
}

func TestNodesWithDifferentSecretsDoNotMix(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{secret: "another"})
	first := newClient(a, "")
	eventually(t, "a is connected", a.isConnected)
	second := newClient(b, "")
	eventually(t, "b is connected", b.isConnected)
	o.send(5)
	first.await("5").sequence(1, 5)
	second.await("5").sequence(1, 5)
	away := b.logs.FilterMessageSnippet("JetStream is away").All()
	if len(away) == 0 {
		t.Fatal("the node with another secret takes part")
	}
	if why := fmt.Sprint(away[0].ContextMap()["error"]); !strings.Contains(why, "made by a node with another secret") {
		t.Errorf("the log says %q", why)
	}
}

// TestABucketMadeAnew deletes the bucket of the leases: its revisions begin at 1 again, far
// below those of the epochs that the stream has.
func TestABucketMadeAnew(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	bucket, err := nodes[0].fleet.store.leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := bucket.PutString(t.Context(), "another", "key"); err != nil {
			t.Fatal(err)
		}
	}
	holder(nodes...).lossy.loseNext(1) // an epoch with a revision over 100 begins
	o.send(10)
	for _, c := range clients {
		c.await("20")
	}
	if err := nodes[0].fleet.store.js.DeleteKeyValue(t.Context(), leases("FLEET")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a node holds a lease of the new bucket", func() bool {
		n := holder(nodes...)
		return n != nil && n.source().contest.look().newest < 5
	})
	o.send(10)
	for _, c := range clients {
		c.await("30").sequence(1, 30)
	}
}

// TestAStreamMadeAnew deletes the stream. Nobody misses anything, nor is told of anything: what
// a node had not read of it, the origin is asked for.
func TestAStreamMadeAnew(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	_, rest, restClients := others(first, nodes, clients)
	behind := restClients[0]
	rest[0].link.cut(true)
	o.send(10)
	for _, c := range clients {
		if c != behind {
			c.await("20")
		}
	}
	if err := first.fleet.store.js.DeleteStream(t.Context(), "FLEET"); err != nil {
		t.Fatal(err)
	}
	rest[0].link.cut(false)
	o.send(10)
	for _, c := range clients {
		c.await("30")
	}
	o.send(10)
	for _, c := range clients {
		c.await("40").sequence(1, 40)
	}
}

func TestTheLeaseOfANodeThatExitsIsFree(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	c := newClient(a, "")
	eventually(t, "the client is served", c.isServed)
	key := a.source().contest.lease.key
	a.end()
	bucket, err := b.fleet.store.leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if entry, err := bucket.Get(t.Context(), key); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the lease is still %v: %v", entry, err)
	}
}

func TestAnOriginThatIgnoresIDsRepeatsNothing(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	o.ignores = true
	nodes, clients := threeNodes(t, o, options{})
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	first := holder(nodes...)
	_, _, restClients := others(first, nodes, clients)
	first.kill()
	o.send(10)
	for _, c := range restClients {
		c.await("20").sequence(1, 20)
	}
}

func TestATopicThatBeginsWithoutNATSNeedNotWaitForIt(t *testing.T) {
	t.Parallel()
	s, o := startServer(t), newOrigin()
	n := newNode(t, s, o, "a", options{})
	n.link.cut(true)
	eventually(t, "the connection is lost", func() bool { return !n.conn.IsConnected() })
	n.fleet.began = time.Now().Add(-time.Hour)
	c := newClient(n, "")
	contest := n.source().contest
	contest.mu.Lock()
	waits := !contest.contact.IsZero()
	contest.mu.Unlock()
	if waits {
		t.Error("the topic waits for NATS as if it had been there a moment ago")
	}
	eventually(t, "the client is served", c.isServed)
}
