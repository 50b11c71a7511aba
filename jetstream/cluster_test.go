package jetstream

import (
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A member is one server of a cluster.
type member struct {
	options *server.Options
	current atomic.Pointer[server.Server]
}

func (m *member) stop() {
	s := m.current.Load()
	s.Shutdown()
	s.WaitForShutdown()
}

// startCluster runs three servers in this process.
func startCluster(t *testing.T) []*member {
	t.Helper()
	var members []*member
	var routes []*url.URL
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		members = append(members, &member{options: &server.Options{
			ServerName: fmt.Sprintf("member%d", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "cluster", Host: "127.0.0.1", Port: port},
		}})
	}
	for _, m := range members {
		m.options.Routes = routes
		m.start(t)
	}
	t.Cleanup(func() {
		for _, m := range members {
			m.stop()
		}
	})
	eventually(t, "the cluster has a leader", func() bool {
		for _, m := range members {
			if s := m.current.Load(); s.JetStreamIsLeader() && s.JetStreamIsCurrent() {
				return len(s.JetStreamClusterPeers()) == 3
			}
		}
		return false
	})
	return members
}

func (m *member) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(m.options.Clone())
	if err != nil {
		t.Fatal(err)
	}
	m.current.Store(s)
	s.Start()
}

// TestAMemberThatDiesLosesNothing ends the member of a cluster that leads the stream, then
// lets it come back.
func TestAMemberThatDiesLosesNothing(t *testing.T) {
	t.Parallel()
	members := startCluster(t)
	o := newOrigin()
	var nodes []*node
	var clients []*client
	for i, m := range members {
		n := newNode(t, inProcess{m}, o, fmt.Sprintf("n%d", i), options{replicas: 3})
		nodes = append(nodes, n)
		clients = append(clients, newClient(n, ""))
	}
	for _, c := range clients {
		eventually(t, "the client is served", c.isServed)
	}
	o.send(10)
	for _, c := range clients {
		c.await("10")
	}
	sent := 10
	for round := range 3 {
		leader := streamLeader(t, nodes)
		stop := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
					o.send(1)
				}
			}
		}()
		members[leader].stop()
		eventually(t, "events come without the member", func() bool {
			for _, c := range clients {
				if len(c.all()) < sent+200 {
					return false
				}
			}
			return true
		})
		members[leader].start(t)
		eventually(t, "all nodes are with the fleet", func() bool {
			for _, n := range nodes {
				if n.isApart() || !n.conn.IsConnected() {
					return false
				}
			}
			return true
		})
		close(stop)
		<-stopped
		sent = o.sent()
		for i, c := range clients {
			c.await(fmt.Sprint(sent)).sequence(1, sent)
			if t.Failed() {
				t.Fatalf("client %d, after member %d has died in round %d", i, leader, round)
			}
		}
	}
}

// inProcess connects to a member that may be started anew.
type inProcess struct{ *member }

func (p inProcess) InProcessConn() (net.Conn, error) {
	s := p.current.Load()
	if !s.Running() {
		return nil, nats.ErrNoServers
	}
	return s.InProcessConn()
}

// streamLeader returns which member leads the stream.
func streamLeader(t *testing.T, nodes []*node) (leader int) {
	t.Helper()
	eventually(t, "the stream has a leader", func() bool {
		for _, n := range nodes {
			stream, err := n.fleet.store.js.Stream(t.Context(), "FLEET")
			if err != nil {
				continue
			}
			if cluster := stream.CachedInfo().Cluster; cluster != nil {
				if _, err := fmt.Sscanf(cluster.Leader, "member%d", &leader); err == nil {
					return true
				}
			}
		}
		return false
	})
	return leader
}
