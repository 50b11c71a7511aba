package oracle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
)

var (
	line    = flag.String("line", "sse_fanout", "what SHARE stands for; if empty, no case may fail")
	only    = flag.String("only", "", "run only the cases whose name matches this regular expression")
	configs = flag.Int("configs", 400, "how many configurations to generate")
	seed    = flag.Uint64("seed", 1, "seed of the generated configurations")
	showLog = flag.Bool("log", false, "show Caddy's log")
)

// root is the directory that all runs use: files of sites, and Caddy's storage.
var root string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		var err error
		if root, err = os.MkdirTemp("", "oracle"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(root)
		if err := writeFiles(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := caddy.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping Caddy:", err)
			code = 1
		}
		return code
	}())
}

// writeFiles fills root. Nothing of the user's home is used.
func writeFiles() error {
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(name, filepath.Join(root, "home")); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"site/index.php":          "<?php // the origin PHP answers\n",
		"site/events.php":         "<?php // the origin PHP answers\n",
		"site/private/index.php":  "<?php // the origin PHP answers\n",
		"site/private/events.php": "<?php // the origin PHP answers\n",
		"site/inside/events":      "a file that a matcher finds\n",
		"site/agents/Inside/1.0":  "a file that a matcher finds\n",
		"site/index.html":         "a page\n",
	} {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return makeCertificates()
}

// selected reports whether the flags ask for a case of this name.
func selected(t *testing.T, name string) bool {
	t.Helper()
	if *only == "" {
		return true
	}
	matches, err := regexp.MatchString(*only, name)
	if err != nil {
		t.Fatalf("-only: %v", err)
	}
	return matches
}

// ports has every port that this process has used. Caddy binds them itself, so
// they are from below the range from which systems pick the ports of clients.
var ports struct {
	mu   sync.Mutex
	used map[int]bool
}

// freePort returns a port that nobody uses on any of the loopback addresses.
func freePort() int {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.used == nil {
		ports.used = make(map[int]bool)
	}
	for {
		port := 10_000 + rand.N(20_000)
		if ports.used[port] {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		ln.Close()
		ports.used[port] = true
		return port
	}
}
