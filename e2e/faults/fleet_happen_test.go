package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// What faults of a fleet take hold of, besides the parts of one Caddy.
const (
	partNodes part = "nodes"
	partNATS  part = "NATS"
)

const deletion = "the stream is deleted"

func fleetKinds(except part) []kind {
	const ms = time.Millisecond
	kinds := []kind{
		{"kill -9 of the holder", partNodes, 0, 2000 * ms, 1},
		{"kill -9 of a follower", partNodes, 0, 2000 * ms, 1},
		{"the holder is stopped", partNodes, lease + 500*ms, lease + 4000*ms, 1},
		{"SIGTERM to the holder", partNodes, 0, 1000 * ms, 1},
		{"rolling restart", partNodes, 0, 0, 1},
		{"all nodes are restarted at once", partNodes, 0, 0, 1},
		{"reload of the holder, handlers changed", partNodes, 0, 0, 1},

		{"kill -9 of the NATS server that leads the stream", partNATS, 500 * ms, 6000 * ms, 1},
		{"kill -9 of a NATS server", partNATS, 500 * ms, 6000 * ms, 1},
		{"partition between the holder and NATS", partNATS, 1000 * ms, 8000 * ms, 1},
		{"connections between a node and NATS are half open", partNATS, 500 * ms, 4000 * ms, 1},
		{"connections between all nodes and NATS are reset", partNATS, 0, 0, 1},
		{deletion, partNATS, 0, 0, 1},

		{"kill -9 of the origin", partOrigin, 0, 4000 * ms, 2},
		{"the origin answers 503", partOrigin, 1000 * ms, 4000 * ms, 1},
		{"the origin ends its streams", partOrigin, 0, 0, 1},

		{"partition between the holder and the origin", partLink, 1000 * ms, 8000 * ms, 1},
		{"connections to the origin are reset inside an event", partLink, 0, 0, 1},

		{"clients are cut", partClients, 0, 0, 3},
		{"clients are cut and stay away", partClients, 0, 0, 1},
		{"clients are loaded anew", partClients, 0, 0, 1},
		{"clients stop reading", partClients, 1000 * ms, 4000 * ms, 1},
	}
	return slices.DeleteFunc(kinds, func(k kind) bool { return k.part == except })
}

// deal makes a schedule in which each part has its faults in turn, each as often as it weighs,
// and then again in another order. It is the same for the same seed, duration and kinds.
func deal(r *rand.Rand, duration time.Duration, kinds []kind) (faults []fault) {
	for _, p := range []part{partNodes, partNATS, partOrigin, partLink, partClients} {
		var deck []kind
		for _, k := range kinds {
			if k.part == p {
				deck = append(deck, slices.Repeat([]kind{k}, k.weight)...)
			}
		}
		at := 4*time.Second + upTo(r, 2*time.Second)
		for next := 0; len(deck) > 0; next++ {
			if next %= len(deck); next == 0 {
				r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			f := fault{at: at, kind: deck[next], seed: r.Uint64()}
			if f.kind.most > 0 {
				f.lasts = (f.kind.least + upTo(r, f.kind.most-f.kind.least)).Round(10 * time.Millisecond)
			}
			if at += f.lasts + time.Second + upTo(r, 3*time.Second); at > duration {
				break
			}
			faults = append(faults, f)
		}
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return int(a.at - b.at) })
	return faults
}

// happen makes a fault happen, and returns when it is over.
func (f *fleet) happen(fault *fault) error {
	r := rand.New(rand.NewPCG(fault.seed, 3))
	topic := fleetTopics[r.IntN(len(fleetTopics))]
	switch fault.kind.part {
	case partNodes:
		return f.happenToNodes(fault, r, topic)
	case partNATS:
		return f.happenToNATS(fault, r, topic)
	case partOrigin:
		return f.happenToOrigin(fault)
	case partLink:
		n, err := f.find(r, topic, true)
		if err != nil {
			return err
		}
		f.say("the holder of %s is %s", topic, n.title)
		if fault.lasts == 0 {
			n.toOrigin.Cut(1 + r.IntN(2000))
			return nil
		}
		partition(fault.lasts, r.IntN(2) == 0, n.toOrigin)
		return nil
	default:
		f.happenToClients(fault, r)
		return nil
	}
}

func (f *fleet) happenToNodes(fault *fault, r *rand.Rand, topic string) error {
	switch fault.kind.name {
	case "rolling restart":
		for _, n := range f.nodes {
			if err := f.restart(n); err != nil {
				return err
			}
			last(time.Second) // until the balancer knows of it
		}
		return nil
	case "all nodes are restarted at once":
		return f.restart(f.nodes...)
	}
	n, err := f.find(r, topic, fault.kind.name != "kill -9 of a follower")
	if err != nil {
		return err
	}
	f.say("of %s, it is %s", topic, n.title)
	switch fault.kind.name {
	case "the holder is stopped":
		f.excused(func() error {
			n.signal(syscall.SIGSTOP)
			last(fault.lasts)
			n.signal(syscall.SIGCONT)
			return nil
		})
	case "SIGTERM to the holder":
		return f.restart(n)
	case "reload of the holder, handlers changed":
		n.heartbeat = 2000 + (n.heartbeat-2000+1)%100
		return n.reload()
	default:
		n.kill()
		last(fault.lasts)
		n.launch(f.t)
	}
	return nil
}

// restart has nodes exit, all at once, and starts them again.
func (f *fleet) restart(nodes ...*node) error {
	took := make([]time.Duration, len(nodes))
	var exits sync.WaitGroup
	for i, n := range nodes {
		exits.Go(func() { took[i], _ = n.terminate(10 * time.Second) })
	}
	exits.Wait()
	for i, n := range nodes {
		f.longestExit = max(f.longestExit, took[i])
		n.launch(f.t)
	}
	if most := slices.Max(took); most > nodeExitTime {
		return fmt.Errorf("%w: %s", errSlowExit, most)
	}
	return nil
}

// nodeExitTime is how long a node may take to exit: it has the rest stored, and gives up its
// leases. NATS may be away.
const nodeExitTime = exitTime + lease

func (f *fleet) happenToNATS(fault *fault, r *rand.Rand, topic string) error {
	switch fault.kind.name {
	case deletion:
		if time.Since(f.began) > max(*duration/2, *duration-time.Minute) {
			return nil // it would take long until the stream has a history again
		}
		if err := f.storehouse.delete(f.t.Context()); err != nil {
			return err
		}
		f.mu.Lock()
		f.deleted = time.Now()
		f.mu.Unlock()
	case "partition between the holder and NATS":
		n, err := f.find(r, topic, true)
		if err != nil {
			return err
		}
		f.say("the holder of %s is %s", topic, n.title)
		f.excused(func() error {
			partition(fault.lasts, true, n.toBrokers...)
			return f.unite()
		})
	case "connections between a node and NATS are half open":
		n := f.nodes[r.IntN(len(f.nodes))]
		f.say("it is %s", n.title)
		f.excused(func() error {
			partition(fault.lasts, false, n.toBrokers...)
			return f.unite()
		})
	case "connections between all nodes and NATS are reset":
		var all []*wire.Proxy
		for _, n := range f.nodes {
			all = append(all, n.toBrokers...)
		}
		for _, p := range all {
			p.Cut(r.IntN(2000))
		}
	default:
		f.killBroker(fault, r)
	}
	return nil
}

// killBroker kills a NATS server, and starts it again.
func (f *fleet) killBroker(fault *fault, r *rand.Rand) {
	b := f.brokers[r.IntN(len(f.brokers))]
	if fault.kind.name != "kill -9 of a NATS server" {
		if leader, err := f.storehouse.leader(f.t.Context()); err == nil {
			b = f.brokers[slices.IndexFunc(f.brokers, func(b *broker) bool { return b.name == leader })]
		}
	}
	f.say("it is %s", b.name)
	f.excused(func() error {
		b.kill()
		last(fault.lasts)
		b.launch(f.t)
		// Until the servers have chosen their leaders anew.
		began := time.Now()
		for {
			_, err := f.storehouse.leader(f.t.Context())
			if err == nil {
				break
			}
			if time.Since(began) > reunion {
				return fmt.Errorf("waiting for a leader of the stream: %w", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		return f.unite()
	})
}
