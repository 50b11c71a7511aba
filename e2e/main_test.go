package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

var (
	directDelivery = flag.String("direct", "on", "on, or off: direct delivery, of all handlers under test")

	// caddyBinary is cmd/caddy of the parent directory.
	caddyBinary string

	timeline = origins.Timeline{Epoch: time.Now()}
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped because of -short: these tests start Caddy, browsers and origins")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < thousands+500 {
		// The Go runtime has raised the soft limit to the hard one, here and in Caddy.
		fmt.Printf("e2e: %d open files are allowed, %d are needed: raise the hard limit (ulimit -Hn): %v\n",
			files.Cur, thousands+500, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "sse-fanout-e2e-")
	if err != nil {
		fmt.Println("e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	caddyBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", caddyBinary, "./cmd/caddy")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("e2e: building Caddy: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
