package jetstream

import (
	"bufio"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestOldServersAreRefused(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{"2.11.0": true, "2.15.3": true, "3.0.0-RC.1": true, "2.10.29": false, "1.4.1": false, "": false, "x": false} {
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// An oldServer is one that has had no JetStream that the fleet can use.
type oldServer struct{}

// InProcessConn implements nats.InProcessConnProvider.
func (oldServer) InProcessConn() (net.Conn, error) {
	conn, end := net.Pipe()
	go func() {
		defer end.Close()
		const greeting = `INFO {"server_id":"old","version":"2.10.29","proto":1,"headers":true,"max_payload":1048576}` + "\r\n"
		if _, err := io.WriteString(end, greeting); err != nil {
			return
		}
		lines := bufio.NewScanner(end)
		for lines.Scan() {
			if lines.Text() == "PING" {
				if _, err := io.WriteString(end, "PONG\r\n"); err != nil {
					return
				}
			}
		}
	}()
	return conn, nil
}

func TestWithAnOldServerEachNodeGoesOn(t *testing.T) {
	t.Parallel()
	goesOn(t, oldServer{}, "its version is 2.10.29, and the fleet needs 2.11 or newer: update the servers")
}

// runServer runs a server with options.
func runServer(t *testing.T, options *server.Options) *server.Server {
	t.Helper()
	options.ServerName, options.DontListen, options.NoLog, options.NoSigs = "test", true, true, true
	options.StoreDir = t.TempDir()
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not get ready")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// js returns a client of a server.
func js(t *testing.T, s nats.InProcessConnProvider) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// goesOn checks that a node whose fleet cannot be used serves its client, and says why.
func goesOn(t *testing.T, s nats.InProcessConnProvider, why string) {
	t.Helper()
	o := newOrigin()
	n := newNode(t, s, o, "a", options{})
	c := newClient(n, "")
	eventually(t, "the client is served", c.isServed)
	o.send(10)
	c.await("10").sequence(1, 10)
	for _, entry := range n.logs.All() {
		if text, _ := entry.ContextMap()["error"].(string); strings.Contains(text, why) {
			return
		}
	}
	for _, entry := range n.logs.All() {
		t.Logf("%s: %v", entry.Message, entry.ContextMap()["error"])
	}
	t.Errorf("the log does not say %q", why)
}

func TestWithoutJetStreamEachNodeGoesOn(t *testing.T) {
	t.Parallel()
	goesOn(t, runServer(t, &server.Options{}), "enable JetStream")
}

func TestAStreamOfSomebodyElseIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	if _, err := js(t, s).CreateStream(t.Context(), jetstream.StreamConfig{Name: "FLEET", Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	goesOn(t, s, "choose another name")
}

// A reader must not lose messages before it can know that they were stored.
func TestAStreamThatKeepsTooFewMessagesIsAnError(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	changeStream(t, s, func(config *jetstream.StreamConfig) { config.MaxMsgsPerSubject = 100 })
	goesOn(t, s, "needs 1024 at least")
}

func TestABucketWithAnotherLeaseIsAnError(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	if _, err := js(t, s).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: leases("FLEET"), TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	goesOn(t, s, "set lease to 1m0s on all nodes")
}

// changeStream makes the stream, and changes its settings as an operator could.
func changeStream(t *testing.T, s nats.InProcessConnProvider, change func(*jetstream.StreamConfig)) {
	t.Helper()
	n := newNode(t, s, newOrigin(), "first", options{})
	info, err := n.fleet.store.info(t.Context())
	if err != nil {
		eventually(t, "the stream is there", func() bool { info, err = n.fleet.store.info(t.Context()); return err == nil })
	}
	change(&info.Config)
	if _, err := js(t, s).UpdateStream(t.Context(), info.Config); err != nil {
		t.Fatal(err)
	}
}

func TestAFullStreamLeavesNobodyWithout(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	changeStream(t, s, func(config *jetstream.StreamConfig) { config.MaxBytes, config.Discard = 10, jetstream.DiscardNew })
	goesOn(t, s, "maximum bytes exceeded")
}

func TestMissingPermissionsLeaveNobodyWithout(t *testing.T) {
	t.Parallel()
	for name, allowed := range map[string][]string{
		"none":              {"_INBOX.>"},
		"only the streams'": {"_INBOX.>", "$JS.API.STREAM.>", "$KV.>", "$JS.API.DIRECT.>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runServer(t, &server.Options{JetStream: true, NoAuthUser: "node", Users: []*server.User{{
				Username: "node", Password: "x",
				Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: allowed}},
			}}})
			goesOn(t, s, "has not all permissions")
		})
	}
}

// TestDocumentedPermissionsAreEnough takes the subjects that docs/fleet.md lists.
func TestDocumentedPermissionsAreEnough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Permissions\n")
	section, below, _ := strings.Cut(section, "\nTo subscribe: ")
	below, _, _ = strings.Cut(below, ". ")
	var subscribed []string
	for subject := range strings.SplitSeq(below, ", ") {
		subscribed = append(subscribed, strings.ReplaceAll(strings.Trim(subject, "`"), "SSE_FANOUT", "FLEET"))
	}
	var allowed []string
	for row := range strings.Lines(section) {
		if cells := strings.Split(row, "|"); len(cells) > 2 {
			for subject := range strings.SplitSeq(cells[1], ",") {
				if subject = strings.Trim(subject, " `"); strings.ContainsAny(subject, ".") {
					allowed = append(allowed, strings.ReplaceAll(subject, "SSE_FANOUT", "FLEET"))
				}
			}
		}
	}
	s := runServer(t, &server.Options{JetStream: true, NoAuthUser: "node", Users: []*server.User{{
		Username: "node", Password: "x",
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: allowed},
			Subscribe: &server.SubjectPermission{Allow: subscribed},
		},
	}}})
	o := newOrigin()
	a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
	clients := []*client{newClient(a, ""), newClient(b, "")}
	for _, c := range clients {
		eventually(t, "the client is served", c.isServed)
	}
	o.send(10)
	for _, c := range clients {
		c.await("10").sequence(1, 10)
	}
	newClient(b, "0").await("10") // with a catch-up
	for _, n := range []*node{a, b} {
		if err := n.conn.LastError(); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	a.end()
	eventually(t, "the other node holds the lease", func() bool { return holder(b) != nil })
	if _, most := o.connections(); most != 1 {
		t.Errorf("%d connections to the origin with the permissions %v", most, allowed)
	}
}
