package jetstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

type adaptTest struct{ name, caddyfile, want string }

func readAdaptTests(t testing.TB) (tests []adaptTest) {
	t.Helper()
	files, err := filepath.Glob("testdata/caddyfile_adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no tests: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, want, found := strings.Cut(string(text), "----------\n")
		if !found {
			t.Fatalf("%s has no line of dashes", file)
		}
		tests = append(tests, adaptTest{filepath.Base(file), input, strings.TrimSuffix(want, "\n")})
	}
	return tests
}

// TestCaddyfileAdapt is as its namesake of the root package.
func TestCaddyfileAdapt(t *testing.T) {
	for _, tc := range readAdaptTests(t) {
		t.Run(tc.name, func(t *testing.T) {
			got, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(tc.caddyfile), nil)
			for _, w := range warnings {
				t.Errorf("got warning %s", w)
			}
			if !strings.HasPrefix(tc.want, "{") {
				if err == nil || err.Error() != tc.want {
					t.Errorf("got error %v,\nwant %s", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, got, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if pretty.String() != tc.want {
				t.Errorf("got\n%s\nwant\n%s", &pretty, tc.want)
			}
		})
	}
}

// TestUsage keeps the places together where an option is written down.
func TestUsage(t *testing.T) {
	source, err := os.ReadFile("caddyfile.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(source)) {
		documented[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, name := range slices.Sorted(maps.Keys(grammar)) {
		if line := "// " + name + " " + grammar[name].syntax; !documented[line] {
			t.Errorf("the documentation of UnmarshalCaddyfile does not have %q", line)
		}
		valid, invalid := false, false
		for _, tc := range readAdaptTests(t) {
			if strings.Contains(tc.caddyfile, "\n\t\t"+name+" ") || strings.Contains(tc.caddyfile, "\n\t\t"+name+"\n") {
				isError := !strings.HasPrefix(tc.want, "{")
				valid, invalid = valid || !isError, invalid || isError && strings.Contains(tc.want, name)
			}
		}
		if !valid || !invalid {
			t.Errorf("got no test of %s (valid: %t, invalid: %t)", name, valid, invalid)
		}
	}
}

// A counter is an origin over HTTP that sends numbered events.
type counter struct {
	*httptest.Server
	mu      sync.Mutex
	changed chan struct{}
	events  int
	open    int
	most    int
}

func newCounter(t *testing.T) *counter {
	c := &counter{changed: make(chan struct{})}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := 0
	fmt.Sscan(r.Header.Get("Last-Event-ID"), &at)
	c.mu.Lock()
	c.open++
	c.most = max(c.most, c.open)
	if r.Header.Get("Last-Event-ID") == "" {
		at = c.events
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open--
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		c.mu.Lock()
		events, changed := c.events, c.changed
		c.mu.Unlock()
		for ; at < events; at++ {
			fmt.Fprintf(w, "id: %d\ndata: %d\n\n", at+1, at+1)
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func (c *counter) send(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events += n
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *counter) connections() (now, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.most
}

// A visitor is a client over HTTP.
type visitor struct {
	t     *testing.T
	lines chan string
	next  int
}

func visit(t *testing.T, address string) *visitor {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/events", nil)
	r.Host = "site.test"
	r.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s has answered %s", address, response.Status)
	}
	v := &visitor{t: t, lines: make(chan string, 1000), next: 1}
	go func() {
		defer close(v.lines)
		defer response.Body.Close()
		s := bufio.NewScanner(response.Body)
		for s.Scan() {
			v.lines <- s.Text()
		}
	}()
	return v
}

// read reads up to an event, and checks that none is missing.
func (v *visitor) read(to int) {
	v.t.Helper()
	for deadline := time.After(30 * time.Second); v.next <= to; {
		select {
		case line, ok := <-v.lines:
			if !ok {
				v.t.Fatalf("the stream has ended in front of event %d", v.next)
			}
			if data, found := strings.CutPrefix(line, "data: "); found {
				if data != fmt.Sprint(v.next) {
					v.t.Fatalf("event %s has come in the place of %d", data, v.next)
				}
				v.next++
			}
		case <-deadline:
			v.t.Fatalf("event %d has not come", v.next)
		}
	}
}

// TestTwoSitesAreOneFleet has a Caddy with two servers, whose handlers take part in a fleet
// like those of two nodes.
func TestTwoSitesAreOneFleet(t *testing.T) {
	natsServer, err := server.NewServer(&server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	natsServer.Start()
	defer natsServer.Shutdown()
	if !natsServer.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not get ready")
	}
	o := newCounter(t)
	first, second := freeAddress(t), freeAddress(t)
	handler := fmt.Sprintf(`{"handler": "sse_fanout", "fleet": true, "name": "events", "linger": {"duration": -1},
		"source": {"handler": "reverse_proxy", "upstreams": [{"dial": %q}]}}`, strings.TrimPrefix(o.URL, "http://"))
	config := func(more string) []byte {
		return fmt.Appendf(nil, `{"admin": {"disabled": true}, "logging": {"logs": {"default": {"level": "ERROR"}}}, "apps": {
			"sse_fanout_fleet": {"servers": [%q], "storage": "memory", "secret": "a secret of the fleet", "lease": 1000000000},
			"http": {"servers": {
				"a": {"listen": [%q], "routes": [{"handle": [%s]}]%s},
				"b": {"listen": [%q], "routes": [{"handle": [%s]}]%s}}}}}`,
			natsServer.ClientURL(), first, handler, more, second, handler, more)
	}
	if err := caddy.Load(config(""), true); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()
	visitors := []*visitor{visit(t, first), visit(t, second)}
	o.send(50)
	for _, v := range visitors {
		v.read(50)
	}
	if _, most := o.connections(); most != 1 {
		t.Errorf("%d connections to the origin", most)
	}

	recorder := httptest.NewRecorder()
	if err := serveAdmin(recorder, httptest.NewRequest(http.MethodGet, "/sse_fanout/fleet", nil)); err != nil {
		t.Fatal(err)
	}
	var status []fleetStatus
	if err := json.Unmarshal(recorder.Body.Bytes(), &status); err != nil || len(status) != 1 || len(status[0].Topics) != 2 {
		t.Fatalf("the admin API says: %s", recorder.Body)
	}
	roles := make(map[fleet.Role]int)
	for _, topic := range status[0].Topics {
		roles[topic.Role]++
		if topic.HolderName != status[0].Node {
			t.Errorf("the node %s asks for %s, and %s is said to", status[0].Node, topic.Name, topic.HolderName)
		}
	}
	if roles[fleet.Holder] != 1 || roles[fleet.Follower] != 1 {
		t.Errorf("the roles are %v", roles)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registerMetrics(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 5 {
		t.Errorf("%d metrics: %v", len(families), err)
	}

	// A reload leaves the fleet as it is.
	if err := caddy.Load(config(`, "max_header_bytes": 65536`), true); err != nil {
		t.Fatal(err)
	}
	o.send(50)
	for _, v := range visitors {
		v.read(100)
	}
	if _, most := o.connections(); most != 1 {
		t.Errorf("%d connections to the origin after a reload", most)
	}

	// Without NATS, each asks the origin itself.
	natsServer.Shutdown()
	natsServer.WaitForShutdown()
	eventually(t, "each node has its own connection", func() bool { now, _ := o.connections(); return now == 2 })
	o.send(50)
	for _, v := range visitors {
		v.read(150)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
