package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/natsserver"
)

// The names that a fleet has for what it keeps in JetStream.
const (
	streamName = "SSE_FANOUT"
)

// A broker is a NATS server, a member of a cluster of JetStream.
type broker struct {
	*process
	binary, name  string
	dir           string
	port, cluster int
}

// newBrokers starts a cluster of three.
func newBrokers(t *testing.T) (brokers []*broker) {
	t.Helper()
	binary, err := natsserver.Build(filepath.Join("..", ".."), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	for i := range 3 {
		b := &broker{binary: binary, name: fmt.Sprintf("nats%d", i+1), dir: t.TempDir(), port: freePort(t), cluster: freePort(t)}
		brokers = append(brokers, b)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", b.cluster))
	}
	for _, b := range brokers {
		// The clients are told of no other addresses, for theirs lead through what breaks.
		config := fmt.Sprintf(`server_name: %s
listen: 127.0.0.1:%d
jetstream { store_dir: %q }
cluster { name: fleet, listen: 127.0.0.1:%d, no_advertise: true, routes: [%s] }
`, b.name, b.port, b.dir, b.cluster, strings.Join(routes, ", "))
		if err := os.WriteFile(filepath.Join(b.dir, "nats.conf"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		b.launch(t)
		t.Cleanup(func() {
			b.kill()
			if t.Failed() {
				log, _ := os.ReadFile(b.log())
				name := filepath.Join(os.TempDir(), fmt.Sprintf("sse-faults-%d-%s.log", os.Getpid(), b.name))
				_ = os.WriteFile(name, log, 0o600)
				t.Logf("log of %s: %s", b.name, name)
			}
		})
	}
	return brokers
}

func (b *broker) log() string { return filepath.Join(b.dir, "log") }

func (b *broker) launch(t *testing.T) {
	t.Helper()
	b.process = start(t, b.name, b.log(), exec.Command(b.binary, "-c", filepath.Join(b.dir, "nats.conf")))
}

// A storehouse is JetStream as the test looks at it.
type storehouse struct{ jetstream.JetStream }

func newStorehouse(t *testing.T, brokers []*broker) storehouse {
	t.Helper()
	var urls []string
	for _, b := range brokers {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", b.port))
	}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	s := storehouse{js}
	eventually(t, 30*time.Second, func() error {
		_, err := js.AccountInfo(t.Context())
		return err
	})
	return s
}

// leader returns the name of the member that leads the stream.
func (s storehouse) leader(ctx context.Context) (string, error) {
	stream, err := s.Stream(ctx, streamName)
	if err != nil {
		return "", err
	}
	if cluster := stream.CachedInfo().Cluster; cluster != nil && cluster.Leader != "" {
		return cluster.Leader, nil
	}
	return "", errors.New("the stream has no leader")
}

// consumers returns how many consumers the stream has.
func (s storehouse) consumers(ctx context.Context) (int, error) {
	stream, err := s.Stream(ctx, streamName)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.Consumers, nil
}

// delete deletes the stream. It may be gone already, and may have no leader at first.
func (s storehouse) delete(ctx context.Context) (err error) {
	for began := time.Now(); time.Since(began) < reunion; {
		err = s.DeleteStream(ctx, streamName)
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("deleting the stream: %w", err)
}
