package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// An origin is a running event-stream server at an address.
type origin struct {
	addr string
	// restart starts it again after kill; both are nil for those in Go.
	restart func(t *testing.T)
	kill    func()
	// streams counts the open ones, where the origin is asked in Go: an HTTP/2
	// connection stays for the next.
	streams func() int
}

// child runs an origin as a child process.
func child(t *testing.T, name string, command func(port int) *exec.Cmd) *origin {
	t.Helper()
	port := freePort(t)
	o := &origin{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	o.restart = func(t *testing.T) {
		t.Helper()
		cmd := command(port)
		cmd.Env = append(cmd.Environ(),
			fmt.Sprintf("EPOCH_MS=%d", timeline.Epoch.UnixMilli()), fmt.Sprintf("PORT=%d", port))
		p := start(t, name, cmd)
		p.awaitListening(t, "tcp", o.addr)
		o.kill = p.kill
	}
	o.restart(t)
	return o
}

func flask(t *testing.T) *origin {
	t.Helper()
	gunicorn := program(t, "gunicorn", "gunicorn")
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Fatal("python3 is not installed: apt-get install python3-flask")
	}
	return child(t, "gunicorn (Debian packages gunicorn, python3-flask)", func(port int) *exec.Cmd {
		// The sync worker says nothing to its master while it streams: with a
		// timeout it would be killed for that.
		cmd := exec.Command(gunicorn, "--workers", "1", "--worker-class", "sync", "--timeout", "0",
			"--bind", fmt.Sprintf("127.0.0.1:%d", port), "flask_app:app")
		cmd.Dir = "origins"
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
		return cmd
	})
}

func node(t *testing.T) *origin {
	t.Helper()
	binary := program(t, "nodejs", "node")
	return child(t, "node", func(int) *exec.Cmd { return exec.Command(binary, "origins/node_app.js") })
}

func php(t *testing.T) *origin {
	t.Helper()
	binary := program(t, "php-cli", "php")
	return child(t, "php -S", func(port int) *exec.Cmd {
		return exec.Command(binary, "-S", fmt.Sprintf("127.0.0.1:%d", port), "origins/php/events.php")
	})
}

func inGo(t *testing.T, handler http.Handler) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	var streams atomic.Int64
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams.Add(1)
		defer streams.Add(-1)
		handler.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: counting, Protocols: protocols}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return &origin{addr: ln.Addr().String(), streams: func() int { return int(streams.Load()) }}
}

func encoded(encoding origins.Encoding) func(*testing.T) *origin {
	return func(t *testing.T) *origin {
		t.Helper()
		return inGo(t, timeline.Handler(encoding))
	}
}

// phpFPM runs the pages of a directory; it answers at a Unix socket.
func phpFPM(t *testing.T, workers int, env map[string]string) (socket string) {
	t.Helper()
	versioned, _ := filepath.Glob("/usr/sbin/php-fpm*")
	binary := program(t, "php-fpm", append(versioned, "php-fpm")...)
	dir := t.TempDir()
	socket = filepath.Join(dir, "fpm.sock")
	config := fmt.Sprintf(`[global]
error_log = /dev/stderr
daemonize = no
[www]
listen = %s
pm = static
pm.max_children = %d
catch_workers_output = yes
`, socket, workers)
	if os.Getuid() == 0 {
		config += "user = root\ngroup = root\n"
	}
	for name, value := range env {
		config += fmt.Sprintf("env[%s] = %q\n", name, value)
	}
	file := filepath.Join(dir, "fpm.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--nodaemonize", "--fpm-config", file}
	if os.Getuid() == 0 {
		args = append(args, "--allow-to-run-as-root")
	}
	start(t, "php-fpm", exec.Command(binary, args...)).awaitListening(t, "unix", socket)
	return socket
}
