package jetstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A member is one server of a cluster. It is a process of its own, so that it can die.
type member struct {
	address string   // of its clients
	environ []string // what TestMember is told
	process *exec.Cmd
}

// What TestMember is told: the name, the port for clients, that of the cluster, the directory and
// the routes of a member.
const (
	memberName   = "FLEET_MEMBER"
	memberPort   = "FLEET_MEMBER_PORT"
	memberPeer   = "FLEET_MEMBER_PEER"
	memberStore  = "FLEET_MEMBER_STORE"
	memberRoutes = "FLEET_MEMBER_ROUTES"
)

// TestMember is no test: it is a member, in the process that start runs.
func TestMember(t *testing.T) {
	if os.Getenv(memberName) == "" {
		return
	}
	port := func(name string) int {
		n, err := strconv.Atoi(os.Getenv(name))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s, err := server.NewServer(&server.Options{
		ServerName: os.Getenv(memberName), Host: "127.0.0.1", Port: port(memberPort),
		JetStream: true, StoreDir: os.Getenv(memberStore), NoLog: true, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "cluster", Host: "127.0.0.1", Port: port(memberPeer)},
		Routes:  server.RoutesFromStr(os.Getenv(memberRoutes)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	_, _ = io.Copy(io.Discard, os.Stdin) // until start's process has ended
	os.Exit(0)
}

func (m *member) start(t *testing.T) {
	t.Helper()
	m.process = exec.Command(os.Args[0], "-test.run=^TestMember$") //nolint:gosec // this program
	m.process.Env = append(os.Environ(), m.environ...)
	if _, err := m.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
}

func (m *member) kill() {
	_ = m.process.Process.Kill()
	_ = m.process.Wait()
}

// InProcessConn implements nats.InProcessConnProvider.
func (m *member) InProcessConn() (net.Conn, error) { return net.Dial("tcp", m.address) }

// startCluster runs three servers.
func startCluster(t *testing.T) []*member {
	t.Helper()
	var members []*member
	var routes []string
	for i := range 3 {
		port, peer := freePort(t), freePort(t)
		routes = append(routes, "nats://127.0.0.1:"+peer)
		members = append(members, &member{
			address: "127.0.0.1:" + port,
			environ: []string{
				memberName + "=" + fmt.Sprintf("member%d", i), memberPort + "=" + port, memberPeer + "=" + peer,
				memberStore + "=" + t.TempDir(),
			},
		})
	}
	for _, m := range members {
		m.environ = append(m.environ, memberRoutes+"="+strings.Join(routes, ","))
		m.start(t)
		t.Cleanup(m.kill)
	}
	conn, err := nats.Connect("", nats.InProcessServer(members[0]), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster stores what three members have", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "PROBE", Replicas: 3})
		return err == nil && js.DeleteStream(ctx, "PROBE") == nil
	})
	return members
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestAMemberThatDiesLosesNothing kills the member of a cluster that leads the stream, then
// lets it come back.
func TestAMemberThatDiesLosesNothing(t *testing.T) {
	t.Parallel()
	members := startCluster(t)
	o := newOrigin()
	var nodes []*node
	var clients []*client
	for i, m := range members {
		n := newNode(t, m, o, fmt.Sprintf("n%d", i), options{replicas: 3})
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
	for round := range 2 {
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
		members[leader].kill()
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
