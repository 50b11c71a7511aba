package oracle

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
)

// A template is a Caddyfile in which SHARE stands for the line of the wrapping form,
// and other capitals for addresses:
//
//	SHARE_VARY, SHARE_FROM the line with "vary Authorization", or "ask_from 127.0.0.7"
//	PORT, PORT2           free ports
//	PUB, PRIV             origins; PUBFCGI is PUB over FastCGI
//	ROOT                  a directory with the files index.html and members
//	CERT, KEY, CA         files
//	N                     tells the names of one template from those of the others
type template struct {
	name   string
	global string // options
	sites  string
	after  string // what a reload replaces sites by, if it is tested

	tls         bool       // PORT speaks TLS
	clients     []identity // identities, if empty
	connections int        // to all origins, with the line, if that is certain
}

// A variant is a template with the line or without, as it runs.
type variant struct {
	*template
	shared    bool
	url       string
	pub, priv *origin
	words     *strings.Replacer
	clients   []*client // of the first phase
	probes    []*client // of the second
}

func (t *template) run(tb testing.TB, shared bool, n int, files directory) *variant {
	tb.Helper()
	v := &variant{template: t, shared: shared, pub: newOrigin(tb, "PUB"), priv: newOrigin(tb, "PRIV")}
	port, port2 := freePort(tb), freePort(tb)
	line := func(option string) string {
		if !shared {
			return ""
		}
		return "sse_fanout {\nstream_close_delay 50ms\nretry 10ms\n" + option + "\n}"
	}
	scheme := "http"
	if t.tls {
		scheme = "https"
	}
	v.url = fmt.Sprintf("%s://127.0.0.1:%s", scheme, port)
	v.words = strings.NewReplacer(
		"SHARE_VARY", line("vary Authorization"), "SHARE_FROM", line("ask_from 127.0.0.7"), "SHARE", line(""), "PORT2", port2, "PORT", port, "PUBFCGI", v.pub.fcgi, "PUB", v.pub.addr, "PRIV", v.priv.addr,
		"ROOT", files.root, "CERT", files.cert, "KEY", files.key, "CAFILE", files.ca, "_N", fmt.Sprintf("_%d%t", n, shared))
	return v
}

func (v *variant) caddyfile(sites string) string {
	return v.words.Replace("{\nauto_https off\n" + v.global + "\n}\n" + sites)
}

// freePort returns a port that no other variant has. It is below those that the system
// gives to the origins and to clients.
func freePort(tb testing.TB) string {
	tb.Helper()
	for range 1000 {
		lastPort++
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", lastPort))
		if err != nil {
			continue
		}
		l.Close()
		return strconv.Itoa(lastPort)
	}
	tb.Fatal("no port is free")
	return ""
}

// lastPort differs from that of another process that runs these tests: Caddy's listeners
// share a port.
var lastPort = 10000 + os.Getpid()%90*100

// load loads the configurations of all variants as one.
func load(tb testing.TB, variants []*variant, sites func(*variant) string, version string) {
	tb.Helper()
	all := map[string]any{}
	for i, v := range variants {
		text := v.caddyfile(sites(v))
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
		if err != nil {
			tb.Fatalf("%s: %v in\n%s", v.name, err, text)
		}
		config := map[string]any{}
		if err := json.Unmarshal(adapted, &config); err != nil {
			tb.Fatal(err)
		}
		if http := lookUp(config, "apps", "http"); http != nil {
			servers, _ := http["servers"].(map[string]any)
			renamed := map[string]any{}
			for name, server := range servers {
				renamed[fmt.Sprintf("v%d_%s", i, name)] = server
			}
			http["servers"] = renamed
		}
		merge(all, config)
	}
	all["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false}}
	all["logging"] = map[string]any{"logs": map[string]any{"default": map[string]any{
		"level": "PANIC", "writer": map[string]any{"output": "discard"},
	}}}
	config, err := json.Marshal(all)
	if err != nil {
		tb.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		tb.Fatalf("loading %s: %v", version, err)
	}
}

func lookUp(config map[string]any, path ...string) map[string]any {
	for _, name := range path {
		config, _ = config[name].(map[string]any)
	}
	return config
}

// merge adds one configuration to another: what both have is merged, and lists are
// joined.
func merge(into, from map[string]any) {
	for name, value := range from {
		switch value := value.(type) {
		case map[string]any:
			if known, ok := into[name].(map[string]any); ok {
				merge(known, value)
				continue
			}
		case []any:
			if known, ok := into[name].([]any); ok {
				into[name] = append(known, value...)
				continue
			}
		}
		into[name] = value
	}
}
