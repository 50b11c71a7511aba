package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/adminapi"
)

// A caddy is a running Caddy process.
type caddy struct {
	*process
	http, https string // where it listens, as URLs
	admin       adminapi.Endpoint

	dir    string
	config func(globals, sites string) (caddyfile string)
	secure bool
}

// runCaddy starts Caddy. In the Caddyfile, HTTP and HTTPS stand for the
// addresses of the sites.
func runCaddy(t *testing.T, globals, sites string) *caddy {
	t.Helper()
	admin, httpPort, httpsPort := freePort(t), freePort(t), freePort(t)
	c := &caddy{
		http:   fmt.Sprintf("http://127.0.0.1:%d", httpPort),
		https:  fmt.Sprintf("https://localhost:%d", httpsPort),
		admin:  adminapi.Endpoint(fmt.Sprintf("http://127.0.0.1:%d", admin)),
		dir:    t.TempDir(),
		secure: strings.Contains(sites, "HTTPS"),
	}
	addresses := strings.NewReplacer("HTTPS", c.https, "HTTP", fmt.Sprintf("http://:%d", httpPort))
	c.config = func(globals, sites string) string {
		return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	http_port %d
	https_port %d
	auto_https disable_redirects
	skip_install_trust
	local_certs
	%s
}
%s
`, admin, httpPort, httpsPort, globals, withDirect(addresses.Replace(sites)))
	}
	c.configure(t, globals, sites)
	c.launch(t)
	return c
}

var handlers = regexp.MustCompile(`(?m)^(\s*sse_fanout\b[^{\n]*?) *(\{?)$`)

// withDirect sets the option of the flag in every handler.
func withDirect(sites string) string {
	if *directDelivery == "on" {
		return sites
	}
	return handlers.ReplaceAllStringFunc(sites, func(line string) string {
		parts := handlers.FindStringSubmatch(line)
		line = parts[1] + " {\n\t\tdirect " + *directDelivery
		if parts[2] == "" {
			line += "\n\t}"
		}
		return line
	})
}

func (c *caddy) configure(t *testing.T, globals, sites string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "Caddyfile"), []byte(c.config(globals, sites)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *caddy) command(name string) *exec.Cmd {
	cmd := exec.Command(caddyBinary, name, "--config", filepath.Join(c.dir, "Caddyfile"), "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+c.dir, "XDG_CONFIG_HOME="+c.dir)
	return cmd
}

// launch starts the process with what was configured last.
func (c *caddy) launch(t *testing.T) {
	t.Helper()
	cmd := c.command("run")
	p := start(t, "caddy", cmd)
	c.process = p
	t.Cleanup(func() {
		// Streams must not keep Caddy from leaving, whatever state the test left them in.
		if !p.terminate(10 * time.Second) {
			t.Error("Caddy was still running 10 s after SIGTERM")
		}
		if log, err := os.ReadFile(p.log); err != nil || bytes.Contains(log, []byte("panic")) {
			t.Errorf("Caddy panicked: %v", err)
		}
	})
	// Caddy opens its sites before it says so.
	eventually(t, 30*time.Second, func() error {
		select {
		case <-p.exited:
			t.Fatalf("Caddy ended: %v", cmd.ProcessState)
		default:
		}
		if log, _ := os.ReadFile(p.log); !bytes.Contains(log, []byte("serving initial configuration")) {
			return errors.New("Caddy does not serve")
		}
		if !c.secure {
			return nil
		}
		// The certificate is made in the background.
		conn, err := tls.Dial("tcp", strings.TrimPrefix(c.https, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// reload gives the running process a new configuration.
func (c *caddy) reload(t *testing.T, globals, sites string) {
	t.Helper()
	c.configure(t, globals, sites)
	if out, err := c.command("reload").CombinedOutput(); err != nil {
		t.Fatalf("reloading Caddy: %v\n%s", err, out)
	}
}
