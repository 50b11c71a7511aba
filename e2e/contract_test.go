package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"
)

var contractHarness = flag.String("contract-harness", "",
	"the program of LaunchDarkly's SSE contract tests (2.31.0); empty: they are skipped")

// Tests of the harness that an option decides about.
const (
	contractHeaders = "HTTP behavior/custom headers"
	contractID      = "HTTP behavior/sends Last-Event-Id in initial request if set"
	contractRestart = "reconnection/caller can trigger a restart"
	contractTimeout = "reconnection/can set read timeout"
)

// What the harness expects of an origin's connections, and sharing does otherwise. Each
// test must fail for its form, so that the list is no longer than it has to be.
var contractExceptions = map[string]string{
	contractHeaders: "the origin gets the headers named by vary",
	contractID:      "the shared connection is opened without the id of a client, which has a catch-up",
	contractRestart: "the connection to the origin stays open for a client that comes back at once (linger)",
	contractTimeout: "the connection to the origin stays open for a client that comes back at once (linger)",
}

// LaunchDarkly's harness is the origin, and checks what its library for Go sees of it. Its
// program comes with the flag, since the module proxy does not have it.
func TestLaunchDarklyContract(t *testing.T) {
	t.Parallel()
	if *contractHarness == "" {
		t.Skip("-contract-harness names no program")
	}
	for _, tc := range []struct {
		name    string
		site    string // with the address of the harness for %[1]s
		skip    string // a test that may pass or fail
		differs []string
	}{
		{name: "direct"},
		{
			name:    "endpoint",
			site:    "sse_fanout %[1]s",
			differs: []string{contractHeaders, contractID, contractRestart, contractTimeout},
		},
		{
			// Requests with unknown headers pass one to one.
			name:    "wrapping",
			site:    "sse_fanout\nreverse_proxy %[1]s",
			differs: []string{contractID, contractRestart, contractTimeout},
		},
		{
			name: "endpoint, without memory",
			site: "sse_fanout %[1]s {\nlinger off\ncatchup off\non_end close\nvary header-name-1 header-name-2\n}",
			// Whether the client has left before it comes back is a race.
			skip: contractRestart,
		},
		{
			name: "wrapping, without memory",
			site: "sse_fanout {\nlinger off\ncatchup off\non_end close\n}\nreverse_proxy %[1]s",
			skip: contractRestart,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			s := &contractService{streams: make(map[string]*contractStream)}
			if tc.site != "" {
				site := fmt.Sprintf(tc.site, fmt.Sprintf("localhost:%d", port))
				s.via = strings.TrimPrefix(runCaddy(t, "", "HTTP {\nhandle {\n"+site+"\n}\n}").http, "http://")
			}
			service := httptest.NewServer(s.handler())
			defer service.Close()
			defer s.close()

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			args := []string{"-url", service.URL, "-port", fmt.Sprint(port)}
			if tc.skip != "" {
				args = append(args, "-skip", regexp.QuoteMeta(tc.skip))
			}
			// Its status says that a test has failed, as some must.
			out, _ := exec.CommandContext(ctx, *contractHarness, args...).CombinedOutput()
			all, failed := contractResults(out)
			passed := 0
			for _, name := range all {
				if !failed[name] {
					passed++
				}
			}
			t.Logf("%d of %d passed; %d streams, %d of them shared", passed, len(all), s.opened.Load(), s.shared.Load())
			if passed == 0 {
				t.Errorf("the harness has run no test: %s", out)
			}
			if tc.site != "" && s.shared.Load() < s.opened.Load()/2 {
				t.Error("most streams were not shared")
			}
			for _, name := range tc.differs {
				if !failed[name] {
					t.Errorf("%s: has not failed, though %s", name, contractExceptions[name])
				}
				delete(failed, name)
			}
			if len(failed) > 0 {
				t.Errorf("failed: %v\n%s", failed, out)
			}
		})
	}
}

var contractLine = regexp.MustCompile(`(?m)^(?:\[(.+)\]|  (FAILED|SKIPPED): (.+?)(?: \(.*\))?)$`)

// contractResults reads what the harness prints: the tests that were run, without those
// that consist of others, and which have failed.
func contractResults(out []byte) (all []string, failed map[string]bool) {
	failed = make(map[string]bool)
	left := make(map[string]bool) // it is skipped or consists of others
	for _, line := range contractLine.FindAllStringSubmatch(string(out), -1) {
		switch line[2] {
		case "FAILED":
			failed[line[3]] = true
		case "SKIPPED":
			left[line[3]] = true
		default:
			all = append(all, line[1])
			left[path.Dir(line[1])] = true
		}
	}
	run := all[:0]
	for _, name := range all {
		if !left[name] {
			run = append(run, name)
		}
	}
	return run, failed
}

// A contractService is what the harness calls a test service: it opens the streams that it
// is told to, and reports what their clients see.
type contractService struct {
	via string // the address to which streams are connected instead, if any

	opened, shared atomic.Int64

	mu      sync.Mutex
	streams map[string]*contractStream // guarded by mu
}

// A contractStream is one client.
type contractStream struct {
	asked contractRequest
	close context.CancelFunc

	mu       sync.Mutex
	stream   *launchdarkly.Stream // guarded by mu
	reported int                  // guarded by mu
}

type contractRequest struct {
	StreamURL      string            `json:"streamUrl"`
	CallbackURL    string            `json:"callbackUrl"`
	InitialDelayMS *int              `json:"initialDelayMs"`
	ReadTimeoutMS  int               `json:"readTimeoutMs"`
	LastEventID    string            `json:"lastEventId"`
	Method         string            `json:"method"`
	Body           string            `json:"body"`
	Headers        map[string]string `json:"headers"`
}

type contractReport struct {
	Kind  string         `json:"kind"`
	Event *contractEvent `json:"event,omitempty"`
	Error string         `json:"error,omitempty"`
}

type contractEvent struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data string `json:"data"`
}

func (s *contractService) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string][]string{
			"capabilities": {"headers", "last-event-id", "post", "read-timeout", "report", "restart"},
		})
	})
	mux.HandleFunc("POST /{$}", s.open)
	mux.HandleFunc("POST /streams/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := s.find(w, r); c != nil {
			c.restart(w, r)
		}
	})
	mux.HandleFunc("DELETE /streams/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := s.find(w, r); c != nil {
			c.close()
		}
	})
	return mux
}

func (s *contractService) open(w http.ResponseWriter, r *http.Request) {
	c := new(contractStream)
	if err := json.NewDecoder(r.Body).Decode(&c.asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.close = cancel
	req, err := http.NewRequestWithContext(ctx, c.asked.Method, c.asked.StreamURL, strings.NewReader(c.asked.Body))
	if err != nil {
		cancel()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c.asked.Body == "" {
		req.Body, req.GetBody = nil, nil
	}
	for name, value := range c.asked.Headers {
		req.Header.Set(name, value)
	}
	s.mu.Lock()
	id := fmt.Sprint(len(s.streams))
	s.streams[id] = c
	s.mu.Unlock()
	go c.follow(req, s.client())
	w.Header().Set("Location", "/streams/"+id)
	w.WriteHeader(http.StatusCreated)
}

// close ends the streams that the harness has left open.
func (s *contractService) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.streams {
		c.close()
	}
}

func (s *contractService) find(w http.ResponseWriter, r *http.Request) *contractStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.streams[r.PathValue("id")]
	if c == nil {
		http.NotFound(w, r)
	}
	return c
}

// client returns one for a stream of its own. What it is redirected to is connected to
// the same address.
func (s *contractService) client() *http.Client {
	transport := &http.Transport{}
	if s.via != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.via)
		}
	}
	return &http.Client{Transport: contractTransport{transport, s}}
}

// A contractTransport counts streams.
type contractTransport struct {
	*http.Transport

	service *contractService
}

func (t contractTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusOK {
		t.service.opened.Add(1)
		if resp.Header.Get("Incremental") == "?1" {
			t.service.shared.Add(1)
		}
	}
	return resp, err
}

func (c *contractStream) follow(req *http.Request, client *http.Client) {
	defer client.CloseIdleConnections()
	ctx := req.Context()
	options := []launchdarkly.StreamOption{
		launchdarkly.StreamOptionHTTPClient(client),
		launchdarkly.StreamOptionLastEventID(c.asked.LastEventID),
		launchdarkly.StreamOptionCanRetryFirstConnection(-1),
		launchdarkly.StreamOptionErrorHandler(func(err error) launchdarkly.StreamErrorHandlerResult {
			if ctx.Err() == nil {
				c.report(ctx, contractReport{Kind: "error", Error: err.Error()})
			}
			return launchdarkly.StreamErrorHandlerResult{CloseNow: ctx.Err() != nil}
		}),
	}
	if c.asked.InitialDelayMS != nil {
		options = append(options, launchdarkly.StreamOptionInitialRetry(time.Duration(*c.asked.InitialDelayMS)*time.Millisecond))
	}
	if c.asked.ReadTimeoutMS > 0 {
		options = append(options, launchdarkly.StreamOptionReadTimeout(time.Duration(c.asked.ReadTimeoutMS)*time.Millisecond))
	}
	stream, err := launchdarkly.SubscribeWithRequestAndOptions(req, options...)
	if err != nil {
		return
	}
	defer stream.Close()
	c.mu.Lock()
	c.stream = stream
	c.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-stream.Events:
			if !ok {
				return
			}
			id := e.(launchdarkly.EventWithLastID).LastEventID()
			c.report(ctx, contractReport{Kind: "event", Event: &contractEvent{id, e.Event(), e.Data()}})
		}
	}
}

// report tells the harness. Reports are numbered, and may be made by several goroutines.
func (c *contractStream) report(ctx context.Context, what contractReport) {
	body, err := json.Marshal(what)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.reported++
	url := fmt.Sprintf("%s/%d", c.asked.CallbackURL, c.reported)
	c.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

func (c *contractStream) restart(w http.ResponseWriter, r *http.Request) {
	var command struct {
		Command string `json:"command"`
	}
	err := json.NewDecoder(r.Body).Decode(&command)
	c.mu.Lock()
	stream := c.stream
	c.mu.Unlock()
	if err != nil || command.Command != "restart" || stream == nil {
		http.Error(w, "the only command is restart, of a stream that is open", http.StatusBadRequest)
		return
	}
	stream.Restart()
}
