package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A lossy JetStream loses messages, and stores those that are sent after them.
type lossy struct {
	jetstream.JetStream
	mu   sync.Mutex
	lose int // of the next messages
}

func (l *lossy) loseNext(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = n
}

// PublishMsgAsync implements jetstream.Publisher.
func (l *lossy) PublishMsgAsync(m *nats.Msg, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	l.mu.Lock()
	lose := l.lose > 0
	if lose {
		l.lose--
	}
	l.mu.Unlock()
	if !lose {
		return l.JetStream.PublishMsgAsync(m, opts...)
	}
	f := &lostFuture{m, make(chan error, 1)}
	time.AfterFunc(20*time.Millisecond, func() { f.failed <- errors.New("lost") })
	return f, nil
}

type lostFuture struct {
	msg    *nats.Msg
	failed chan error
}

func (*lostFuture) Ok() <-chan *jetstream.PubAck { return nil }
func (f *lostFuture) Err() <-chan error          { return f.failed }
func (f *lostFuture) Msg() *nats.Msg             { return f.msg }

func TestMessagesThatTheStreamLosesAreSentAgain(t *testing.T) {
	t.Parallel()
	for _, noIDs := range []bool{false, true} {
		t.Run(fmt.Sprintf("without ids %t", noIDs), func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			o.noIDs = noIDs
			nodes, clients := threeNodes(t, o, options{})
			o.send(10)
			for _, c := range clients {
				c.await("10")
			}
			for i := range 5 {
				holder(nodes...).lossy.loseNext(1 + i)
				o.send(100)
				for _, c := range clients {
					c.await(fmt.Sprint(110 + 100*i))
				}
			}
			for _, c := range clients {
				c.sequence(1, 510)
			}
			if asked := o.questions(); len(asked) != 1 {
				t.Errorf("the origin was asked %d times", len(asked))
			}
		})
	}
}

// A world is what happens to the nodes of a fleet in a run of the model test.
type world struct {
	t       *testing.T
	random  *rand.Rand
	server  nats.InProcessConnProvider
	origin  *origin
	nodes   []*node
	clients []*client
	at      []int // of each client, the node
	made    int
	trouble []func() // ends what troubles a node, nil if nothing does

	mu      sync.Mutex
	log     []string             // guarded by mu
	excused map[string]time.Time // which nodes may have a connection beside the holder's, and until when; guarded by mu
}

// TestFleetModel lets things happen to the nodes of a fleet, and checks that no client loses
// an event, nor gets one twice or too early.
func TestFleetModel(t *testing.T) {
	t.Parallel()
	for n := range uint64(*worlds) {
		s := *seed + n
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			w := &world{
				t: t, random: rand.New(rand.NewPCG(s, 2)), server: startServer(t), origin: newOrigin(),
				excused: make(map[string]time.Time),
			}
			w.origin.ignores = s%3 == 0
			defer func() {
				if t.Failed() {
					t.Log(strings.Join(w.log, "\n"))
				}
			}()
			w.run()
		})
	}
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("at event %d: ", w.origin.sent())+fmt.Sprintf(format, args...))
}

func (w *world) run() {
	for range 3 {
		w.nodes = append(w.nodes, w.newNode())
		w.trouble = append(w.trouble, nil)
	}
	for i := range 6 {
		w.clients = append(w.clients, newClient(w.nodes[i%3], ""))
		w.at = append(w.at, i%3)
	}
	for _, n := range w.nodes {
		eventually(w.t, n.name+" is connected", n.isConnected)
	}
	for _, c := range w.clients {
		eventually(w.t, "the client is served", c.isServed)
	}
	w.origin.send(1) // without an id, nobody knows what is missing
	for _, c := range w.clients {
		c.await("1")
	}
	var sending atomic.Bool
	sending.Store(true)
	var sender sync.WaitGroup
	sender.Go(func() {
		for sending.Load() {
			w.origin.send(1)
			time.Sleep(3 * time.Millisecond)
		}
	})
	watching, stop := context.WithCancel(w.t.Context())
	sender.Go(func() { w.watch(watching) })
	for range 12 {
		w.happen(w.random.IntN(len(w.nodes)))
		time.Sleep(time.Duration(w.random.Int64N(int64(testLease))))
	}
	for i := range w.nodes {
		w.heal(i)
	}
	for _, n := range w.nodes {
		eventually(w.t, n.name+" is with the fleet", func() bool { return !n.isApart() })
	}
	eventually(w.t, "one connection to the origin", func() bool { now, _ := w.origin.connections(); return now == 1 })
	stop()
	sending.Store(false)
	sender.Wait()
	w.origin.send(1)
	last := w.origin.sent()
	for i, c := range w.clients {
		c.await(fmt.Sprint(last)).sequence(1, last)
		if w.t.Failed() {
			w.note("client %d at %s", i, w.nodes[w.at[i]].name)
			return
		}
	}
}

// excuse lets a node have a connection to the origin for a while, though another node has one.
// A node without NATS has one of its own, and one that is stopped does not notice that its
// lease is over.
func (w *world) excuse(n *node, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excused[n.name] = time.Now().Add(d)
}

// isExcused reports whether a node may have a connection beside the holder's.
func (w *world) isExcused(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Before(w.excused[name])
}

// watch checks that no two nodes have connections to the origin for longer than a lease.
func (w *world) watch(ctx context.Context) {
	tick := time.NewTicker(testLease / 50)
	defer tick.Stop()
	since := time.Now() // when there was one connection at most
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		nodes := slices.DeleteFunc(w.origin.askers(), w.isExcused)
		if len(nodes) < 2 {
			since = time.Now()
		}
		if d := time.Since(since); d > testLease {
			w.note("%v ask the origin", nodes)
			w.t.Errorf("%v have asked the origin at once for %s", nodes, d)
			return
		}
	}
}

func (w *world) newNode() *node {
	w.made++
	return newNode(w.t, w.server, w.origin, fmt.Sprintf("n%d", w.made), options{})
}

func (w *world) heal(i int) {
	if w.trouble[i] != nil {
		w.note("%s is healed", w.nodes[i].name)
		w.trouble[i]()
		w.trouble[i] = nil
		w.excuse(w.nodes[i], 2*testLease) // to notice
	}
}

// happen makes something happen to a node.
func (w *world) happen(i int) {
	n := w.nodes[i]
	if w.trouble[i] != nil {
		w.heal(i)
		return
	}
	switch w.random.IntN(7) {
	case 0:
		w.note("%s exits", n.name)
		n.end()
		w.replace(i)
	case 1:
		w.note("%s dies", n.name)
		n.kill()
		w.replace(i)
	case 2:
		w.note("%s loses NATS", n.name)
		n.link.cut(true)
		w.excuse(n, time.Hour)
		w.trouble[i] = func() { n.link.cut(false) }
	case 3:
		w.note("%s does not reach the origin", n.name)
		w.origin.forbid(n.name, true)
		w.trouble[i] = func() { w.origin.forbid(n.name, false) }
	case 4:
		w.note("%s is stopped", n.name)
		goOn := n.stop()
		w.excuse(n, time.Hour)
		w.trouble[i] = goOn
	case 5:
		w.note("%s has messages lost", n.name)
		n.lossy.loseNext(1 + w.random.IntN(3))
	case 6:
		if w.origin.ignores && slices.ContainsFunc(w.trouble, func(end func()) bool { return end != nil }) {
			return // a node may be ahead, and nobody can be asked for what follows where its clients are
		}
		j := w.random.IntN(len(w.clients))
		to := w.random.IntN(len(w.nodes))
		w.note("client %d goes to %s", j, w.nodes[to].name)
		w.at[j] = to
		w.clients[j].move(w.nodes[to])
	}
}

// replace makes another node take the place of one that is no more, and its clients come back.
func (w *world) replace(i int) {
	w.nodes[i] = w.newNode()
	for j, c := range w.clients {
		if w.at[j] == i {
			w.at[j] = w.random.IntN(len(w.nodes))
			w.note("client %d goes to %s with %s", j, w.nodes[w.at[j]].name, c.lastID())
			c.move(w.nodes[w.at[j]])
		}
	}
}
