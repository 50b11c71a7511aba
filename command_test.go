package ssefanout

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/sse-fanout/caddy-sse-fanout/internal/cli"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
)

// The commands know how sse_fanout turns clients away.
func TestCommandsKnowWhoIsTurnedAway(t *testing.T) {
	o := newLiveOrigin(t)
	s := run(t, "sse_fanout "+o.addr+" {\nmax_subscribers 1\n}")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, url := range []string{s.url, s.tls} {
		open(t, s.client, url+"/events")
		target, err := eventsource.ParseURL(url + "/events")
		if err != nil {
			t.Fatal(err)
		}
		client := &eventsource.Client{URL: target, Transport: s.client.Transport, NoReconnect: true}
		if err := client.Run(ctx); !eventsource.IsTurnedAway(err) {
			t.Errorf("%s: got %v, want that the client was turned away", url, err)
		}
	}
}

// The commands, as processes: what a shell sees of them.
func TestCommands(t *testing.T) {
	if args := os.Getenv("SSE_FANOUT_TEST_COMMAND"); args != "" {
		// This is one of the processes that the test starts below.
		os.Args = append([]string{"caddy"}, strings.Split(args, "\n")...)
		caddycmd.Main()
		os.Exit(0)
	}
	o := newLiveOrigin(t)
	ticker := time.NewTicker(20 * time.Millisecond)
	t.Cleanup(ticker.Stop)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ticker.C:
				o.mu.Lock()
				for events := range o.conns {
					select {
					case events <- fmt.Sprintf("id: %d\nevent: tick\ndata: {\"n\": %d}\n\n", n, n):
					default:
					}
				}
				o.mu.Unlock()
			case <-t.Context().Done():
				return
			}
		}
	}()
	fanout := fmt.Sprintf(":%d", freePort(t))
	unused := fmt.Sprintf("localhost:%d", freePort(t))

	command := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		t.Cleanup(cancel)
		// The test binary has Caddy in it, and this test becomes one.
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCommands$")
		cmd.Env = append(os.Environ(), "SSE_FANOUT_TEST_COMMAND="+strings.Join(args, "\n"), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
		return cmd
	}
	server := command("sse-fanout", "--from", fanout, "--to", o.addr, "--heartbeat", "1s")
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		if err := server.Wait(); err != nil {
			t.Errorf("sse-fanout: %v\n%s", err, log.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", "localhost"+fanout); err == nil {
			conn.Close()
			break
		} else if time.Now().After(end) {
			t.Fatalf("sse-fanout does not answer: %v\n%s", err, log.String())
		}
	}

	var running sync.WaitGroup // all at once, as most of them wait
	for _, tc := range []struct {
		args        []string
		code        int
		out, notice string // parts of
	}{
		{[]string{"sse-tail", fanout + "/a", "-n", "2"}, 0, `tick  {"n": `, "● http://localhost" + fanout + "/a  HTTP/1.1 200 OK after "},
		{[]string{"sse-tail", fanout + "/a", "-n", "2", "--json", "-q"}, 0, `"type":"tick","data":"{\"n\": `, ""},
		{[]string{"sse-tail", fanout + "/a", "-n", "1", "--raw"}, 0, ": sse_fanout\nretry: ", ""},
		{[]string{"sse-tail", fanout + "/a", "-e", "nothing", "-t", "300ms"}, cli.ExitTimeout, "", "✗ time is up\n"},
		{[]string{"sse-tail", fanout + "/a", "--max-event-size", "3B"}, cli.ExitEventTooLarge, "", "larger than 3B (--max-event-size)"},
		{[]string{"sse-tail", unused}, cli.ExitUnreachable, "", "✗ unreachable: dial tcp"},
		{[]string{"sse-tail", unused, "-H", "nonsense"}, 1, "", "Error: invalid --header"},
		{[]string{"sse-tail", "--nonsense"}, 1, "", "Error: unknown flag: --nonsense"},
		{[]string{"sse-check", fanout + "/a", "-d", "1s"}, 0, "✓ The stream arrives as it is sent.\n", ""},
		{[]string{"sse-check", fanout + "/a", "-d", "1s", "--json"}, 0, `"verdict": "ok"`, ""},
		{[]string{"sse-check", unused}, cli.ExitUnreachable, "✗ There is no stream to listen to.", ""},
		{[]string{"sse-fanout"}, 1, "", "--to is required"},
	} {
		running.Go(func() {
			cmd := command(tc.args...)
			var out, notices bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &notices
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("%q: got code %d, want %d", tc.args, code, tc.code)
			}
			if !strings.Contains(out.String(), tc.out) || !strings.Contains(notices.String(), tc.notice) || tc.out == "" && out.Len() > 0 {
				t.Errorf("%q: got\n%s\nand\n%s\nwant %q and %q", tc.args, out.String(), notices.String(), tc.out, tc.notice)
			}
			if strings.Contains(out.String()+notices.String(), "\x1b") {
				t.Errorf("%q: colours where there is no terminal", tc.args)
			}
		})
	}
	running.Wait()
}
