package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/selfsigned"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/wire"
)

// A node is one Caddy of a fleet. All its ways can be broken.
type node struct {
	*caddy
	toOrigin  *wire.Proxy
	toBrokers []*wire.Proxy
	before    footprint
}

func newNode(t *testing.T, name, origin string, brokers []*broker) *node {
	t.Helper()
	n := &node{caddy: &caddy{title: name, dir: t.TempDir(), admin: freePort(t), http: freePort(t), heartbeat: 2000, greeting: "hello"}}
	relay := func(addr string) *wire.Proxy {
		p, err := wire.NewProxy(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	n.toOrigin = relay(origin)
	for _, b := range brokers {
		n.toBrokers = append(n.toBrokers, relay(fmt.Sprintf("127.0.0.1:%d", b.port)))
	}
	n.config = n.caddyfile
	n.run(t)
	return n
}

func (n *node) caddyfile() string {
	var servers []string
	for _, p := range n.toBrokers {
		servers = append(servers, "nats://"+p.Addr())
	}
	options := fmt.Sprintf(`
			fleet
			history 4000 1m
			gap_event %s
			heartbeat %dms
			linger 2s
			reconnect 100ms 1s
			idle_timeout 3s
			dispatch_timeout 5s
			wait 3s
			direct %s`, gapEvent, n.heartbeat, *direct)
	const transport = `
			transport http {
				keepalive 5s
			}`
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	auto_https off
	persist_config off
	log default {
		exclude http.handlers.sse_fanout
	}
	log fanout {
		include http.handlers.sse_fanout
		level DEBUG
	}
	sse_fanout_fleet %s {
		node %s
		replicas 3
		history 4000 10m
		lease %s
		secret "all nodes know this, and nobody else"
	}
}
http://:%d {
	handle /fleet/* {
		sse_fanout %s {
			name fleet%s%s
		}
	}
	handle /wrapping/* {
		sse_fanout {
			name wrapping%s
		}
		reverse_proxy %s {%s
		}
	}
	respond %q
}
`, n.admin, strings.Join(servers, " "), n.title, lease, n.http, n.toOrigin.Addr(), options, transport,
		options, n.toOrigin.Addr(), transport, n.greeting)
}

// A share is what a node is for a topic.
type share struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Holder string `json:"holder"`
	Lag    int    `json:"lag"`
	Error  string `json:"error"`
}

// shares returns what a node is for its topics.
func (n *node) shares() ([]share, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	body, err := n.adminEndpoint().Get(ctx, "/sse_fanout/fleet")
	if err != nil {
		return nil, err
	}
	var fleets []struct {
		Topics []share `json:"topics"`
	}
	if err := json.Unmarshal(body, &fleets); err != nil || len(fleets) == 0 {
		return nil, fmt.Errorf("reading what %s says of its fleet, %.200q: %w", n.title, body, err)
	}
	return fleets[0].Topics, nil
}

// role returns what a node is for a topic, or nothing.
func (n *node) role(topic string) string {
	all, _ := n.shares() // killed, or stopped
	for _, s := range all {
		if s.isOf(topic) {
			return s.Role
		}
	}
	return ""
}

// isOf reports whether a share is of a topic. Its name is the URL, and what tells it from
// others that have the same.
func (s share) isOf(topic string) bool {
	url, _, _ := strings.Cut(s.Name, " ")
	return strings.HasSuffix(url, topic)
}

// partition makes what is sent on some ways of a node vanish for a while. Where both ends are
// not told, what was lost is lost for good, as behind a router that has forgotten them.
func partition(lasts time.Duration, told bool, ways ...*wire.Proxy) {
	for _, p := range ways {
		p.Swallow(true)
	}
	last(lasts)
	for _, p := range ways {
		p.Swallow(false)
		if told {
			p.Cut(0)
		}
	}
}

// A balancer is HAProxy before the nodes. It returns the URLs of plain HTTP, and of TLS.
func newBalancer(t *testing.T, nodes []*node) (plain, secure string) {
	t.Helper()
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		if binary = "/usr/sbin/haproxy"; exec.Command(binary, "-v").Run() != nil {
			t.Fatal("haproxy is not installed (Debian package haproxy)")
		}
	}
	dir := t.TempDir()
	pem, err := selfsigned.PEM()
	if err != nil {
		t.Fatal(err)
	}
	certificate := filepath.Join(dir, "certificate.pem")
	if err := os.WriteFile(certificate, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	open, tls := freePort(t), freePort(t)
	// An EventSource that is answered 503 never comes back, and one whose connection is
	// closed without an answer does.
	config := fmt.Sprintf(`defaults
	mode http
	timeout connect 2s
	timeout client 60s
	timeout server 60s
	retries 3
	option redispatch 1
	retry-on conn-failure empty-response
	default-server check inter 300ms fall 2 rise 1
	errorfile 503 /dev/null
	errorfile 502 /dev/null
frontend clients
	bind 127.0.0.1:%d
	bind 127.0.0.1:%d ssl crt %s alpn h2,http/1.1
	# Topics are of a host, and all clients are to have the same.
	http-request set-header Host fleet.test
	default_backend nodes
backend nodes
	balance roundrobin
	option httpchk GET /
`, open, tls, certificate)
	for _, n := range nodes {
		config += fmt.Sprintf("\tserver %s 127.0.0.1:%d\n", n.title, n.http)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "HAProxy", filepath.Join(dir, "log"), exec.Command(binary, "-db", "-f", file))
	t.Cleanup(func() {
		p.kill()
		if log, _ := os.ReadFile(filepath.Join(dir, "log")); t.Failed() {
			t.Logf("log of HAProxy:\n%.4000s", log)
		}
	})
	return fmt.Sprintf("http://127.0.0.1:%d", open), fmt.Sprintf("https://localhost:%d", tls)
}
