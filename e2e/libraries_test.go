package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
	"gopkg.in/cenkalti/backoff.v1"
)

// A sight is an event as an application sees it. What its library does not tell is nil.
type sight struct {
	ID, Type, Data *string
}

func (s sight) String() string {
	show := func(s *string) string {
		if s == nil {
			return "-"
		}
		return fmt.Sprintf("%q", *s)
	}
	return fmt.Sprintf("id %s, type %s, data %s", show(s.ID), show(s.Type), show(s.Data))
}

// A target is what an application asks for.
type target struct {
	url    string
	lastID string
	header map[string]string // beside the library's own
	worker bool              // in a worker of a page
}

func (to target) request(ctx context.Context, accept string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.url, nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if to.lastID != "" {
		req.Header.Set("Last-Event-ID", to.lastID)
	}
	for name, value := range to.header {
		req.Header.Set(name, value)
	}
	return req, nil
}

// A library is a client library under test.
type library struct {
	name string

	// reader says that its requests do not name event streams by themselves.
	reader bool
	// typed says that it shows only events with a type.
	typed bool
	// page says that in a page of a browser, its requests look like an EventSource's: it
	// fetches past all caches.
	page bool
	// alone says why the wrapping form shares nothing with it.
	alone string

	// restIsEvent says that what is left over when a connection ends is an event to it,
	// with the last id and without data, also if it is nothing but a comment.
	restIsEvent bool

	// browser is the executables of the browser that has it; the first is named like its
	// Debian package.
	browser []string

	// follow shows the events of a stream until ctx ends, or until the library does
	// not come back by itself.
	follow func(ctx context.Context, to target, see func(sight))
}

// The names in testdata/clients/libraries.js.
var nodeLibraries = []library{
	{name: "Chromium", browser: []string{"chromium", "chromium-browser", "google-chrome"}},
	{name: "Firefox", browser: []string{"firefox-esr"}},
	{name: "eventsource 2"},
	{name: "eventsource 3", page: true},
	{name: "eventsource 4", page: true},
	{name: "eventsource 5", page: true},
	{name: "eventsource-client", page: true},
	{name: "eventsource-parser"},
	{name: "fetch-event-source"},
	{name: "sse.js", reader: true},
	{name: "event-source-polyfill", page: true},
	{name: "event-source-polyfill, XMLHttpRequest"},
	{name: "reconnecting-eventsource"},
	{name: "undici EventSource"},
	{name: "openai Stream", reader: true},
	{name: "@anthropic-ai/sdk Stream", reader: true, typed: true},
	{name: "@anthropic-ai/sdk rawEvents", reader: true},
}

var otherLibraries = []library{
	{name: "launchdarkly/eventsource", follow: followLaunchDarkly},
	{name: "tmaxmax/go-sse", follow: followTmaxmax},
	// To it, each comment with a blank line behind is an event, once an id is known. It
	// is sent no such line, but the end of a connection does the same.
	{name: "r3labs/sse", restIsEvent: true, follow: followR3labs},
	{name: "curl", reader: true, follow: followCurl},
	{name: "as httpx-sse", follow: followHTTPX},
	{name: "split at blank lines", reader: true, alone: "it does not ask for an event stream", follow: followSplit},
}

// A script is a process of Node with all applications of one library.
type script struct {
	ready chan struct{} // closed when it can connect

	mu sync.Mutex

	// Guarded by mu.
	input *json.Encoder
	see   map[string]func(sight)
	ended map[string]chan string
	last  int
}

// runScript starts the process; it ends with the test.
func runScript(t *testing.T, dir string, args ...string) *script {
	t.Helper()
	library := args[0]
	cmd := exec.Command(program(t, "nodejs", "node"), append([]string{filepath.Join(dir, "run.js")}, args...)...)
	// A browser has a process group of its own, and must be closed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &script{
		ready: make(chan struct{}),
		input: json.NewEncoder(stdin),
		see:   make(map[string]func(sight)),
		ended: make(map[string]chan string),
	}
	read := make(chan error, 1)
	go func() { read <- s.read(stdout) }()
	t.Cleanup(func() {
		stdin.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		err := <-read
		if werr := cmd.Wait(); err == nil {
			err = werr
		}
		kill.Stop()
		if err != nil {
			t.Errorf("%s: %v", library, err)
		}
		if t.Failed() && log.Len() > 0 {
			t.Logf("%s: %s", library, log.Bytes()[max(0, log.Len()-2<<10):])
		}
	})
	return s
}

func (s *script) read(stdout io.Reader) error {
	lines := json.NewDecoder(stdout)
	for {
		var line struct {
			Ready  bool
			Client string
			Event  *sight
			Ended  string
		}
		if err := lines.Decode(&line); err == io.EOF { //nolint:errorlint // it is never wrapped
			return nil
		} else if err != nil {
			return err
		}
		s.mu.Lock()
		see, ended := s.see[line.Client], s.ended[line.Client]
		s.mu.Unlock()
		switch {
		case line.Ready:
			close(s.ready)
		case line.Event != nil:
			see(*line.Event)
		case line.Ended != "":
			select {
			case ended <- line.Ended:
			default: // some say it twice
			}
		}
	}
}

func (s *script) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-s.ready:
	case <-time.After(time.Minute):
		t.Fatal("after a minute, a library is still not loaded")
	}
}

func (s *script) send(message map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.input.Encode(message) // if the process has ended, the test says so
}

func (s *script) follow(ctx context.Context, to target, see func(sight)) {
	ended := make(chan string, 1)
	s.mu.Lock()
	s.last++
	client := fmt.Sprint(s.last)
	s.see[client], s.ended[client] = see, ended
	s.mu.Unlock()
	s.send(map[string]any{"client": client, "url": to.url, "id": to.lastID, "headers": to.header, "worker": to.worker})
	select {
	case <-ctx.Done():
	case <-ended:
	}
	s.send(map[string]any{"client": client, "close": true})
}

func followLaunchDarkly(ctx context.Context, to target, see func(sight)) {
	req, err := to.request(ctx, "")
	if err != nil {
		return
	}
	s, err := launchdarkly.SubscribeWithRequestAndOptions(req, launchdarkly.StreamOptionLastEventID(to.lastID),
		launchdarkly.StreamOptionErrorHandler(func(error) (result launchdarkly.StreamErrorHandlerResult) { return result }))
	if err != nil {
		return
	}
	defer func() {
		s.Close()
		for range s.Events { //nolint:revive // it waits for us
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-s.Events:
			if !ok {
				return
			}
			id, name, data := e.Id(), e.Event(), e.Data()
			see(sight{&id, &name, &data})
		}
	}
}

func followTmaxmax(ctx context.Context, to target, see func(sight)) {
	req, err := to.request(ctx, "")
	if err != nil {
		return
	}
	conn := tmaxmax.NewConnection(req)
	conn.SubscribeToAll(func(e tmaxmax.Event) { see(sight{&e.LastEventID, &e.Type, &e.Data}) })
	_ = conn.Connect() // that it has ended is all there is to know
}

func followR3labs(ctx context.Context, to target, see func(sight)) {
	c := r3labs.NewClient(to.url)
	if to.lastID != "" {
		c.LastEventID.Store([]byte(to.lastID))
	}
	c.Headers = to.header
	// Its default is the same, but would not notice the end of ctx.
	c.ReconnectStrategy = backoff.WithContext(backoff.NewExponentialBackOff(), ctx)
	_ = c.SubscribeRawWithContext(ctx, func(e *r3labs.Event) {
		id, name, data := string(e.ID), string(e.Event), string(e.Data)
		see(sight{&id, &name, &data})
	})
}

// followCurl decodes by the standard what curl prints.
func followCurl(ctx context.Context, to target, see func(sight)) {
	args := []string{"-sN"}
	if to.lastID != "" {
		args = append(args, "-H", "Last-Event-ID: "+to.lastID)
	}
	for name, value := range to.header {
		args = append(args, "-H", name+": "+value)
	}
	cmd := exec.CommandContext(ctx, "curl", append(args, to.url)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Wait() }()
	s := &stream{lines: bufio.NewReader(stdout)}
	for {
		e, err := s.next()
		if err != nil {
			return
		}
		see(sight{&e.id, &e.name, &e.data})
	}
}

func get(ctx context.Context, to target, accept string) (body io.ReadCloser) {
	req, err := to.request(ctx, accept)
	if err != nil {
		return nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	return resp.Body
}

// followHTTPX decodes as Python's httpx-sse does: a block is an event if it has any
// field, or if an id is known, which is never forgotten. After the first id, each blank
// line behind a comment is an event.
func followHTTPX(ctx context.Context, to target, see func(sight)) {
	body := get(ctx, to, "text/event-stream")
	if body == nil {
		return
	}
	defer body.Close()
	var id, name string
	var data []string
	retry := false
	for lines := bufio.NewScanner(body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if id == "" && name == "" && data == nil && !retry {
				continue
			}
			e := event{id, name, strings.Join(data, "\n")}
			see(sight{&e.id, &e.name, &e.data})
			name, data, retry = "", nil, false
		case field == "id":
			id = value
		case field == "event":
			name = value
		case field == "data":
			data = append(data, value)
		case field == "retry":
			retry = true
		}
	}
}

// followSplit decodes as is often written by hand: the stream is split at blank lines,
// and a block is an event by its first field.
func followSplit(ctx context.Context, to target, see func(sight)) {
	body := get(ctx, to, "")
	if body == nil {
		return
	}
	defer body.Close()
	r := bufio.NewReader(body)
	var block []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line != "\n" {
			block = append(block, strings.TrimSuffix(line, "\n"))
			continue
		}
		if len(block) > 0 {
			switch field, _, _ := strings.Cut(block[0], ":"); field {
			case "id", "event", "data":
				var data string
				for _, line := range block {
					if value, ok := strings.CutPrefix(line, "data: "); ok {
						data += value
					}
				}
				see(sight{Data: &data})
			}
		}
		block = nil
	}
}
