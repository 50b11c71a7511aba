package faults

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	duration = flag.Duration("duration", time.Minute, "for how long there are faults")
	clients  = flag.Int("clients", 500, "how many clients there are")
	seed     = flag.Uint64("seed", 0, "decides the schedule; 0: a new one")
	direct   = flag.String("direct", "on", "on, or off: direct delivery")
	except   = flag.String("except", "", "fleet: the part that has no faults: nodes, NATS, origin, link or clients")
	only     = flag.String("only", "", "names of the faults to have, by semicolons; empty: all")

	caddyBinary = flag.String("caddy", "", "the Caddy to test; empty: cmd/caddy of the parent directory, built now")
)

func TestMain(m *testing.M) {
	if config := os.Getenv(originEnv); config != "" {
		originMain(config)
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("faults: skipped because of -short: it starts Caddy and an origin")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *caddyBinary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sse-fanout-faults-")
	if err != nil {
		fmt.Println("faults:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	*caddyBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", *caddyBinary, "./cmd/caddy")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("faults: building Caddy: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
