package e2e

import (
	"bufio"
	"context"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Clients that decode gzip by themselves, and join at any time, see what the origin has sent,
// none more, none less, at once.
func TestDecodersOfCompressedStreams(t *testing.T) {
	dir := installed(t, "testdata/clients")
	origin := &ledgerOrigin{wake: make(chan struct{})}
	caddy := runCaddy(t, "", bothForms(inGo(t, origin).addr, quietOptions+"\n\t\t\tcompress gzip from 1", "hello"))
	python := program(t, "python3-requests", "/usr/bin/python3")
	node := program(t, "nodejs", "node")
	decoders := []library{
		{name: "Go", follow: followGo},
		{name: "curl", follow: printedBy(program(t, "curl", "curl"), "-sN", "--compressed", "-H", "Accept: text/event-stream")},
		{name: "requests", follow: printedBy(python, "testdata/decoders/requests_stream.py")},
		{name: "Node's http", follow: printedBy(node, "testdata/decoders/http.mjs")},
		{name: "Node's fetch", follow: printedBy(node, "testdata/decoders/fetch.mjs")},
	}
	for _, l := range nodeLibraries {
		if l.browser == nil && l.name != "undici EventSource" && l.name != "eventsource 4" {
			continue
		}
		args := []string{l.name}
		if l.browser != nil {
			args = append(args, program(t, l.browser[0], l.browser...))
		}
		s := runScript(t, dir, args...)
		s.awaitReady(t)
		l.follow = s.follow
		decoders = append(decoders, l)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
	}()
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	var published sync.WaitGroup
	published.Go(func() {
		for publishing.Err() == nil {
			origin.publish()
			time.Sleep(200 * time.Millisecond) // each event takes a page an exchange of messages with its test
		}
	})

	// They join at several distances from a restart point.
	var apps []*app
	for round := range 6 {
		for _, l := range decoders {
			if l.browser != nil && round%3 != 0 {
				continue
			}
			for _, form := range []string{"endpoint", "wrapping"} {
				a := &app{library: l, form: form, tap: newTap(t, strings.TrimPrefix(caddy.http, "http://"))}
				running.Go(func() { a.run(ctx, target{url: "http://" + a.tap.addr + "/" + form}) })
				apps = append(apps, a)
			}
		}
		before, _, _ := origin.state()
		eventually(t, 30*time.Second, func() error {
			if now, _, _ := origin.state(); now < before+14 {
				return context.DeadlineExceeded
			}
			return nil
		})
	}
	await(t, apps, "in the stream", func(a *app) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.count > 50
	})
	for _, a := range apps[len(apps)/2:] {
		a.tap.cut() // they come back with an id
	}
	await(t, apps, "back", func(a *app) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.count > 180
	})
	// In the quiet, everything has come without an event that follows.
	stop()
	published.Wait()
	newest, _, _ := origin.state()
	await(t, apps, "at the newest event", func(a *app) bool {
		last, _ := a.at()
		return last == newest
	})
	for _, a := range apps {
		if _, err := a.at(); err != nil {
			t.Errorf("%v: %v", a, err)
		}
		for _, header := range a.tap.answers() {
			if header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%v was answered with %v", a, header)
			}
		}
	}
}

// followGo reads what the transport of net/http decodes.
func followGo(ctx context.Context, to target, see func(sight)) {
	req, err := to.request(ctx, "text/event-stream")
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	s := &stream{lines: bufio.NewReader(resp.Body)}
	for {
		e, err := s.next()
		if err != nil || !resp.Uncompressed {
			return
		}
		see(sight{&e.id, &e.name, &e.data})
	}
}

// printedBy reads what a command prints that is given the URL and the last id. An id becomes a
// header for curl, which is the only one with options.
func printedBy(name string, args ...string) func(ctx context.Context, to target, see func(sight)) {
	return func(ctx context.Context, to target, see func(sight)) {
		args := append([]string(nil), args...)
		if strings.HasPrefix(args[0], "-") {
			if to.lastID != "" {
				args = append(args, "-H", "Last-Event-ID: "+to.lastID)
			}
			args = append(args, to.url)
		} else {
			args = append(args, to.url, to.lastID)
		}
		cmd := exec.CommandContext(ctx, name, args...)
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
}
