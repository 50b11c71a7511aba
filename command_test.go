package ssefanout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/cli"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// flagsOf parses args as a command does.
func flagsOf(t *testing.T, command caddycmd.Command, args ...string) (caddycmd.Flags, error) {
	t.Helper()
	cmd := new(cobra.Command)
	command.CobraFunc(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return caddycmd.Flags{}, err
	}
	return caddycmd.Flags{FlagSet: cmd.Flags()}, cmd.ValidateArgs(cmd.Flags().Args())
}

func TestFanoutConfig(t *testing.T) {
	const proxy = `"source":{"handler":"reverse_proxy","upstreams":[{"dial":"localhost:9000"}]}`
	for _, tc := range []struct {
		args    []string
		handler string
		rest    string // part of the configuration
	}{
		{[]string{"--from", ":8080", "--to", "localhost:9000"}, `{"handler":"sse_fanout",` + proxy + `}`,
			`"listen":[":8080"],"routes":[{"handle"`},
		{[]string{"--from", ":8080", "-t", "localhost:9000"}, `{"handler":"sse_fanout",` + proxy + `}`, `"automatic_https":{"disable":true}`},
		{[]string{"--to", "localhost:9000", "-i", "-r"}, `{"handler":"sse_fanout",` + proxy + `}`,
			`"match":[{"host":["localhost"]}]`},
		{[]string{"--from", "example.com", "--to", "localhost:9000", "--internal-certs"}, `{"handler":"sse_fanout",` + proxy + `}`,
			`"tls":{"automation":{"policies":[{"issuers":[{"module":"internal"}],"subjects":["example.com"]}]}}`},
		{[]string{"--from", ":80", "--to", "localhost:9000", "--access-log", "--debug"}, `{"handler":"sse_fanout",` + proxy + `}`, `"logs":{}`},
		{[]string{"--from", "http://[::1]:8080", "--to", "a:1,a:2", "--to", "a:3"},
			`{"handler":"sse_fanout","source":{"handler":"reverse_proxy","upstreams":[{"dial":"a:1"},{"dial":"a:2"},{"dial":"a:3"}]}}`, ""},
		{
			[]string{
				"--from", ":80", "--to", "localhost:9000", "--history", "50 1h 2MiB", "--heartbeat", `10s comment "still here"`,
				"--vary", "Cookie", "--vary", "Authorization", "--cors-origins", "*", "--max-event-size", "1MiB", "--stream-timeout", "off",
			},
			`{"cors_origins":["*"],"handler":"sse_fanout","heartbeat":{"comment":"still here","interval":10000000000},` +
				`"history":{"age":3600000000000,"events":50,"size":2097152},"max_event_size":1048576,` + proxy + `,"vary":["Cookie","Authorization"]}`,
			"",
		},
		{
			[]string{"--from", ":80", "--to", "https://a.example", "--insecure"},
			`{"handler":"sse_fanout","source":{"handler":"reverse_proxy",` +
				`"transport":{"protocol":"http","tls":{"insecure_skip_verify":true}},"upstreams":[{"dial":"a.example:443"}]}}`,
			"",
		},
		{
			[]string{"--from", ":80", "--to", "localhost:9000", "-c", "-H", "X-A: 1", "-d", "X-B: {env.B}"},
			`{"handler":"sse_fanout","source":{"handler":"reverse_proxy","headers":{` +
				`"request":{"set":{"Host":["{http.reverse_proxy.upstream.hostport}"],"X-A":["1"]}},` +
				`"response":{"set":{"X-B":["{env.B}"]}}},"upstreams":[{"dial":"localhost:9000"}]}}`,
			"",
		},
		{
			[]string{"--from", ":80", "--to", "unix//run/app.sock"},
			`{"handler":"sse_fanout","source":{"handler":"reverse_proxy","upstreams":[{"dial":"unix//run/app.sock"}]}}`, "",
		},
	} {
		fs, err := flagsOf(t, fanoutCommand, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := fanoutConfig(fs)
		if err != nil {
			t.Errorf("%q: %v", tc.args, err)
			continue
		}
		got := string(sortedJSON(t, cfg))
		if handler := string(sortedJSON(t, json.RawMessage(tc.handler))); !strings.Contains(got, handler) || !strings.Contains(got, tc.rest) {
			t.Errorf("%q: got\n%s\nwant\n%s\nand %s", tc.args, got, handler, tc.rest)
		}
		if !strings.Contains(got, `"admin":{"config":{"persist":false},"disabled":true}`) {
			t.Errorf("%q: the admin endpoint is open", tc.args)
		}
		if err := caddy.Validate(cfg); err != nil {
			t.Errorf("%q: %v", tc.args, err)
		}
	}
}

// sortedJSON encodes v with all keys in order.
func sortedJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	text, _ = json.Marshal(plain)
	return text
}

func TestFanoutConfigErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "--to is required"},
		{[]string{"--to", "a", "--from", "a/b"}, "paths are not allowed: a/b"},
		{[]string{"--to", "a", "--from", "a:b:c"}, "invalid downstream address a:b:c: "},
		{[]string{"--to", "a", "--from", ":http"}, "invalid downstream address :http: "},
		{[]string{"--to", "a", "--from", ":70000"}, "invalid downstream address :70000: "},
		{[]string{"--to", "http://a/path"}, "invalid upstream address http://a/path: "},
		{[]string{"--to", "{"}, `invalid upstream address "{"`},
		{[]string{"--to", "a b"}, `invalid upstream address "a b"`},
		{[]string{"--to", "a", "--insecure"}, "--insecure needs an upstream address that begins with https://"},
		{[]string{"--to", "a", "--header-up", "nonsense"}, `invalid --header-up: header "nonsense" has no colon`},
		{[]string{"--to", "a", "--header-down", "a b: c"}, `invalid --header-down: header "a b: c": "a b" is not the name of a header`},
		{[]string{"--to", "a", "--history", "many"}, `invalid --history: parsing history: "many" is not a positive number; expected: <events> [<age> [<size>]]`},
		{[]string{"--to", "a", "--history", "1", "--history", "2 3 4"}, "invalid --history: "},
		{[]string{"--to", "a", "--heartbeat", ""}, "invalid --heartbeat: parsing heartbeat: missing or empty argument"},
		{[]string{"--to", "a", "--heartbeat", "10s\nvary Cookie"}, "invalid --heartbeat: it must be a single line"},
		{[]string{"--to", "a", "--heartbeat", "10s { x }"}, "invalid --heartbeat: "},
		{[]string{"--to", "a", "--reconnect", "2s 1s"}, "invalid --reconnect: checking reconnect: the minimum of 2s is above the maximum of 1s"},
		{[]string{"--to", "a", "--vary", "Last-Event-ID"}, "invalid --vary: "},
		{[]string{"--to", "a", "--on-end", "explode"}, `invalid --on-end: checking on_end: "explode" is not one of reconnect, close`},
	} {
		fs, err := flagsOf(t, fanoutCommand, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fanoutConfig(fs); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.args, err, tc.want)
		}
	}
}

// Every option of the directive is a flag, and none of them takes the name of
// one that the command has anyway.
func TestFanoutFlags(t *testing.T) {
	fs, err := flagsOf(t, fanoutCommand)
	if err != nil {
		t.Fatal(err)
	}
	for option := range settings.Grammar {
		if _, err := fs.GetStringArray(flagOf(option)); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
}

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
