package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cli"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

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
				"--from", ":80", "--to", "localhost:9000", "--history", "50 1h 2MiB", "--heartbeat", `10s event "still here"`,
				"--vary", "Cookie", "--vary", "Authorization", "--cors-origins", "*", "--max-event-size", "1MiB", "--stream-timeout", "off",
			},
			`{"cors_origins":["*"],"handler":"sse_fanout","heartbeat":{"event":"still here","interval":10000000000},` +
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
		fs, err := cli.FlagsOf(t, cli.Fanout, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := cli.FanoutConfig(fs)
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
		fs, err := cli.FlagsOf(t, cli.Fanout, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cli.FanoutConfig(fs); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.args, err, tc.want)
		}
	}
}

// Every option of the directive is a flag, and none of them takes the name of
// one that the command has anyway.
func TestFanoutFlags(t *testing.T) {
	fs, err := cli.FlagsOf(t, cli.Fanout)
	if err != nil {
		t.Fatal(err)
	}
	for option := range settings.Grammar {
		if _, err := fs.GetStringArray(cli.FlagOf(option)); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
}
